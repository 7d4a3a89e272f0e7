"""Admin actions on more rows than one request may handle: a page that posts itself continues them."""

import html
import re
import threading
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry, LogEntryManager
from django.db import connections
from django.db.models import Model
from django.test import Client

from authsvc.accounts import user_changes_admin
from authsvc.accounts.two_factor import admin as two_factor_admin
from authsvc.accounts.two_factor import devices
from authsvc.accounts.users_admin import UserAdmin
from authsvc.lights import Kind
from authsvc.models import EventTransaction, RemovedAccount, User
from authsvc.signups.changes import remove_account
from authsvc.signups.events import REQUEST_TOPICS
from chatsvc.models import ChatUser
from eventbus.topics import ensure_topics
from runtime.admin_toolkit import delete_action, long_action
from tests.users import client_of, new_user, user_with

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "chat"]),
    pytest.mark.needs("broker", "redis"),
]
LIST = "/admin/authsvc/user/"
REPLAYABLE = "/admin/authsvc/eventtransaction/"


@pytest.fixture(autouse=True)
def two_rows_per_request(settings, monkeypatch) -> None:
    settings.KAFKA_PREFIX = f"long-actions-{uuid4()}-"
    ensure_topics(REQUEST_TOPICS.values())
    monkeypatch.setattr(long_action, "WORKS_FOR", 0)
    monkeypatch.setattr(delete_action, "ROWS", 2)
    monkeypatch.setattr(user_changes_admin, "PAGE", 2)
    monkeypatch.setattr(two_factor_admin, "PAGE", 2)


@pytest.fixture
def root() -> User:
    return new_user("root", is_staff=True, is_superuser=True)


def users(count: int) -> list[User]:
    return [new_user(f"user-{n:02}") for n in range(count)]


def form_of(page: str) -> dict[str, list[str]]:
    """The hidden fields of the page, as a browser sends them."""
    form: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page):
        form.setdefault(name, []).append(html.unescape(value))
    return form


def begin(client: Client, chosen: list[User], action: str = "delete_selected", *, query: str = "", **more: str) -> str:
    form = {"action": action, "_selected_action": [user.pk for user in chosen], **more}
    answer = client.post(LIST + query, form, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def go_on(client: Client, page: str) -> str:
    [query] = re.findall(r'<form method="post"[^>]* action="(\?[^"]*)"', page)
    answer = client.post(LIST + html.unescape(query), form_of(page), follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def finish(client: Client, page: str) -> tuple[list[str], str]:
    """Let the page post itself until the end. Return the progress that it showed, and the last page."""
    shown = []
    while 'id="long-action"' in page:
        shown += re.findall(r"(\d+ of \d+) are done", page)
        page = go_on(client, page)
    return shown, page


def left() -> set[str]:
    return set(User.objects.values_list("user_id", flat=True))


def test_all_users_of_a_filter_are_removed_although_their_keys_fit_into_no_form(root, settings):
    # Two keys per form would be too many.
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 7
    chosen = users(5)
    client = client_of(root)
    asked = begin(client, chosen[:1], select_across="1", index="0")
    assert "Do you want to delete 5 users?" in asked
    assert len(left()) == 6
    newcomer = new_user("newcomer")
    shown, page = finish(client, go_on(client, asked))
    assert shown == ["2 of 5", "4 of 5"]
    assert left() == {root.user_id, newcomer.user_id}
    assert "Successfully deleted 5 users." in page
    assert '<a href="/admin/authsvc/eventtransaction/?kind__exact=removal">' in page
    assert EventTransaction.objects.filter(kind=Kind.REMOVAL).count() == RemovedAccount.objects.count() == 5


def test_the_question_names_a_few_and_counts_the_others(root, monkeypatch):
    monkeypatch.setattr(delete_action, "NAMED", 2)
    asked = begin(client_of(root), users(5))
    assert re.findall(r"<li>(user-\d\d)</li>", asked) == ["user-00", "user-01"]
    assert "and 3 more" in asked
    assert "This cannot be undone" in asked


@pytest.mark.parametrize("action", ["delete_selected", "deactivate"])
def test_rows_between_the_chosen_ones_are_left_alone(root, action):
    everyone = users(9)
    chosen, others = everyone[::2], everyone[1::2]
    client = client_of(root)
    shown, _page = finish(client, begin(client, chosen, action, post="yes"))
    assert shown == ["2 of 5", "4 of 5"]
    active = set(User.objects.filter(is_active=True).values_list("user_id", flat=True))
    assert active == {root.user_id, *(user.user_id for user in others)}


def test_the_second_factor_is_turned_off_for_any_number_of_users(root):
    chosen = users(5)
    for user in chosen[:3]:
        devices.begin_setup(user)
        devices.turn_on(devices.device_in_setup(user))
    client = client_of(root)
    shown, page = finish(client, begin(client, [*chosen, root], "reset_two_factor"))
    assert shown == ["2 of 6", "4 of 6"]
    assert "turned off for 3 users. 2 users had not turned it on. Turn off your own" in page
    assert not any(map(devices.second_factor_of, chosen))


def test_a_closed_tab_ends_the_removal_and_a_second_one_does_the_rest(root):
    chosen = users(5)
    client = client_of(root)
    begin(client, chosen, post="yes")
    assert left() == {root.user_id, "user-02", "user-03", "user-04"}
    _shown, page = finish(client, begin(client, chosen, post="yes"))
    assert "Successfully deleted 3 users." in page
    assert left() == {root.user_id}


def test_the_own_account_is_left_out(root):
    chosen = [root, *users(1)]
    client = client_of(root)
    assert "Do you want to delete 1 user?" in begin(client, chosen)
    assert "Successfully deleted 1 user." in begin(client, chosen, post="yes")
    assert left() == {root.user_id}
    words = "Nothing was deleted. Your own account is never removed here: ask another administrator."
    assert words in begin(client, [root], post="yes")


@pytest.mark.parametrize("action", ["delete_selected", "deactivate", "replay_chosen"])
def test_an_account_that_somebody_else_removes_meanwhile_leaves_no_user_id_in_the_log(root, action, monkeypatch):
    [user] = users(1)
    row = EventTransaction.objects.get(id=user.owner_signup_id)
    log_actions = LogEntryManager.log_actions
    removals: list[threading.Thread] = []

    def remove() -> None:
        remove_account(user)
        connections.close_all()

    def log_after_a_removal(
        manager: LogEntryManager, user_id: int, queryset: Iterable[Model], *args: Any, **options: Any
    ) -> Any:
        rows = list(queryset)
        if not removals:
            removals.append(threading.Thread(target=remove))
            removals[0].start()
            # If it has to wait for this transaction, it comes next.
            removals[0].join(0.5)
        return log_actions(manager, user_id, rows, *args, **options)

    monkeypatch.setattr(LogEntryManager, "log_actions", log_after_a_removal)
    path, chosen = (REPLAYABLE, row) if action == "replay_chosen" else (LIST, user)
    answer = client_of(root).post(path, {"action": action, "_selected_action": [chosen.pk], "post": "yes"}, follow=True)
    assert answer.status_code == 200
    [removal] = removals
    removal.join()
    assert not User.objects.filter(pk=user.pk).exists()
    said = set(LogEntry.objects.values_list("object_repr", flat=True))
    assert said
    assert said <= {str(user.owner_signup_id), str(row.id)}


def test_rows_that_are_gone_are_named_as_the_reason(root):
    [gone] = users(1)
    User.objects.filter(pk=gone.pk).delete()
    assert "Nothing was deleted. The selected rows no longer exist." in begin(client_of(root), [gone], post="yes")


def test_staff_who_lose_the_permission_meanwhile_are_refused(root):
    staff = user_with("view_user", "delete_user", user_id="staff")
    client = client_of(staff)
    page = begin(client, users(3), post="yes")
    staff.user_permissions.clear()
    assert client.post(LIST, form_of(page)).status_code == 403
    assert "user-02" in left()


def test_a_progress_that_is_not_of_this_action_is_refused(root):
    client = client_of(root)
    chosen = users(5)
    of_another = form_of(begin(client, chosen, "deactivate"))["progress"]
    form = form_of(begin(client, chosen, post="yes"))
    for forged in (of_another, ["x"], [form["progress"][0][:-1]]):
        assert client.post(LIST, form | {"progress": forged}).status_code == 400
        assert left() == {root.user_id, "user-02", "user-03", "user-04"}


@pytest.mark.parametrize("action", ["delete_selected", "deactivate"])
def test_an_action_begun_on_the_last_page_of_a_filter_goes_on_after_that_page_is_gone(root, monkeypatch, action):
    monkeypatch.setattr(UserAdmin, "list_per_page", 2)
    chosen = users(5)
    client = client_of(root)
    page = begin(client, chosen, action, query="?is_active__exact=1&q=user-&p=3", select_across="1")
    if action == "delete_selected":
        assert "Do you want to delete 5 users?" in page
        # The page no longer exists even before the answer.
        client_of(root).post(f"{LIST}{chosen[4].pk}/delete/", {"post": "yes"})
        page = go_on(client, page)
        assert "Do you want to delete 4 users?" in page
        page = go_on(client, page)
    shown, page = finish(client, page)
    assert shown == (["2 of 4"] if action == "delete_selected" else ["2 of 5", "4 of 5"])
    assert re.search("Successfully deleted 4 users|5 users were deactivated", page)
    assert set(User.objects.filter(is_active=True)) == {root}


def test_a_selection_that_grows_after_the_question_is_counted_and_asked_about_again(root):
    everyone = users(5)
    User.objects.filter(pk=everyone[1].pk).update(is_staff=True)
    client = client_of(root)
    page = begin(client, everyone[:1], query="?is_staff__exact=0&q=user-", select_across="1")
    assert "Do you want to delete 4 users?" in page
    assert "The selection has changed" not in page
    User.objects.filter(pk=everyone[1].pk).update(is_staff=False)
    page = go_on(client, page)
    assert "The selection has changed" in page
    assert "Do you want to delete 5 users?" in page
    assert len(left()) == 6
    _shown, page = finish(client, go_on(client, page))
    assert "Successfully deleted 5 users." in page
    assert left() == {root.user_id}


def test_a_selection_in_which_another_row_has_replaced_one_is_asked_about_again(root):
    everyone = users(5)
    User.objects.filter(pk=everyone[1].pk).update(is_staff=True)
    client = client_of(root)
    page = begin(client, everyone[:1], query="?is_staff__exact=0&q=user-", select_across="1")
    assert re.findall(r"<li>user-(\d\d)</li>", page) == ["00", "02", "03", "04"]
    User.objects.filter(pk=everyone[1].pk).update(is_staff=False)
    User.objects.filter(pk=everyone[2].pk).update(is_staff=True)
    page = go_on(client, page)
    assert "The selection has changed" in page
    assert re.findall(r"<li>user-(\d\d)</li>", page) == ["00", "01", "03", "04"]
    assert len(left()) == 6
    _shown, page = finish(client, go_on(client, page))
    assert "Successfully deleted 4 users." in page
    assert left() == {root.user_id, "user-02"}


def refusal_of(client: Client, page: str) -> str:
    answer = client.post(LIST, form_of(page))
    assert answer.status_code == 403
    return html.unescape(answer.content.decode())


def test_a_row_that_may_no_longer_be_removed_stops_the_action_which_reports_what_it_removed(root):
    client = client_of(user_with("view_user", "delete_user", user_id="staff"))
    chosen = users(5)
    asked = begin(client, chosen)
    User.objects.filter(pk=chosen[3].pk).update(is_staff=True)
    assert "staff or administrators. Nothing was changed." in refusal_of(client, asked)
    User.objects.filter(pk=chosen[3].pk).update(is_staff=False)
    page = go_on(client, asked)
    assert "2 of 5 are done" in page
    User.objects.filter(pk=chosen[3].pk).update(is_staff=True)
    words = refusal_of(client, page)
    assert "Nothing was changed" not in words
    assert "The action stopped after it had deleted 2 users." in words
    assert left() == {root.user_id, "staff", "user-02", "user-03", "user-04"}


def test_a_row_that_the_action_has_passed_does_not_stop_it(root):
    client = client_of(user_with("view_user", "delete_user", user_id="staff"))
    chosen = users(5)
    page = begin(client, chosen, post="yes")
    # Restored under its old key, as from a backup.
    chosen[0].is_staff = True
    User.objects.bulk_create([chosen[0]])
    _shown, page = finish(client, page)
    assert "Successfully deleted 5 users." in page
    assert left() == {root.user_id, "staff", "user-00"}


def test_copies_at_a_service_are_deleted_by_the_same_page(root):
    for n in range(5):
        ChatUser.objects.create(user_id=f"copy-{n}", email=f"copy-{n}@example.org")
    client = client_of(root)
    path = "/admin/chatsvc/chatuser/"
    form = {"action": "delete_selected", "_selected_action": [ChatUser.objects.first().pk], "select_across": "1"}
    page = client.post(path, form).content.decode()
    assert "the next replay of the sign-up adds it again" in page
    requests = 0
    while "<form method" in page and form_of(page).get("progress"):
        page = client.post(path, form_of(page), follow=True).content.decode()
        requests += 1
    assert requests == 3
    assert "Successfully deleted 5" in page
    assert not ChatUser.objects.exists()
