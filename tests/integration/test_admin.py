"""Auth's part of the administration, as the administrator sees it."""

import html
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from authsvc.lights import Status, Verdict
from authsvc.models import SignUp, User
from authsvc.operations import replay_action
from authsvc.signups import publisher
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from eventbus.inspection.attendance import Attendance
from eventbus.models import DeadLetter
from eventbus.topics import ensure_topics
from runtime.admin_toolkit import long_action
from runtime.admin_toolkit.page_admin import PageAdmin
from tests.client import read_topic
from tests.participants import MODELS
from tests.signups import save_signup
from tests.users import client_with

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")

LIST = "/admin/authsvc/eventtransaction/"


@pytest.fixture
def admin_client() -> Client:
    """A superuser, whose own sign-up is gone: the tests count only those that they make."""
    client = Client()
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", "correct horse 9"))
    SignUp.objects.all().delete()
    return client


@pytest.fixture
def staff_client() -> Client:
    """May see sign-ups and nothing else."""
    return client_with("view_signup", user_id="staff-user")


def save_decided(user_id: str, **verdicts: Status) -> SignUp:
    signup = save_signup(user_id, name="<script>alert(1)</script>")
    apply_verdicts(
        [
            ReportedVerdict(signup.id, Verdict(service, status, "duplicate: userId" if status == "FAIL" else None))
            for service, status in verdicts.items()
        ]
    )
    signup.refresh_from_db()
    return signup


@pytest.fixture
def signups() -> dict[str, SignUp]:
    return {
        "pending": save_decided("pending-user", chat=Status.SUCCESS),
        "red": save_decided("red-user", chat=Status.FAIL, customer=Status.SUCCESS),
        "green": save_decided("green-user", chat=Status.SUCCESS, customer=Status.SUCCESS),
    }


def shown(client: Client, query: str = "") -> set[str]:
    response = client.get(LIST + query)
    assert response.status_code == 200
    return {signup.user_id for signup in response.context["cl"].result_list}


def test_sign_ups_are_listed_with_a_colour_a_symbol_and_a_word_for_each_light(admin_client, signups):
    page = admin_client.get(LIST).content.decode()
    assert '<span class="light light-fail" title="Already had this user ID">✕ chat</span>' in page
    assert '<span class="light light-pending" title="Waiting for an answer">◌ customer</span>' in page
    assert '<span class="light light-success" title="Ready">✓ auth</span>' in page


@pytest.mark.parametrize(
    ("query", "users"),
    [
        ("", {"pending-user", "red-user", "green-user"}),
        ("?lights=pending", {"pending-user"}),
        ("?lights=red", {"red-user"}),
        ("?lights=complete", {"red-user", "green-user"}),
        ("?lights=stalled", set()),
        ("?q=RED-us", {"red-user"}),
        ("?q=nobody", set()),
        ("?begun=10m", {"pending-user", "red-user", "green-user"}),
        ("?begun=older10m", set()),
    ],
)
def test_it_filters_and_searches(admin_client, signups, query, users):
    assert shown(admin_client, query) == users


def test_sign_ups_are_filtered_by_age(admin_client, signups):
    SignUp.objects.filter(user_id="red-user").update(created_at=timezone.now() - timedelta(hours=2))
    assert shown(admin_client, "?begun=1h") == {"pending-user", "green-user"}
    assert shown(admin_client, "?begun=1d") == {"pending-user", "red-user", "green-user"}
    assert shown(admin_client, "?begun=older10m") == {"red-user"}


def test_a_sign_up_is_found_by_its_id(admin_client, signups):
    assert shown(admin_client, f"?q={signups['green'].id}") == {"green-user"}


def test_a_sign_ups_page_shows_the_reason_and_escapes_what_was_typed(admin_client, signups):
    page = admin_client.get(f"{LIST}{signups['red'].id}/change/").content.decode()
    assert "duplicate: userId" in page
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;" in page
    assert "not a hash" not in page


def test_a_sign_up_can_be_neither_added_changed_nor_deleted(admin_client, signups):
    path = f"{LIST}{signups['red'].id}"
    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(f"{path}/change/", {"user_id": "other"}).status_code == 403
    assert admin_client.post(f"{path}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.needs("broker")
def test_the_selected_sign_ups_are_replayed_and_the_action_is_logged(admin_client, signups, settings):
    settings.KAFKA_PREFIX = f"admin-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    chosen = [str(signups["red"].id), str(signups["green"].id)]
    response = admin_client.post(LIST, {"action": "replay_chosen", "_selected_action": chosen}, follow=True)
    assert "2 sign-ups sent again, 0 skipped, 0 failed." in response.content.decode()
    assert "Skipped" not in response.content.decode()
    assert set(LogEntry.objects.values_list("object_id", flat=True)) == set(chosen)
    assert SignUp.objects.get(user_id="red-user").version == signups["red"].version
    User.objects.filter(user_id="green-user").delete()
    response = admin_client.post(LIST, {"action": "replay_chosen", "_selected_action": chosen}, follow=True)
    words = "1 sign-up sent again, 1 skipped, 0 failed. Skipped means that the account no longer exists."
    assert words in response.content.decode()


@pytest.mark.needs("broker")
def test_a_replay_under_a_filter_that_it_changes_is_logged_too(admin_client, signups, settings):
    settings.KAFKA_PREFIX = f"admin-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    SignUp.objects.filter(user_id="pending-user").update(stalled_at=timezone.now())
    chosen = [str(signups["pending"].id)]
    admin_client.post(f"{LIST}?lights=stalled", {"action": "replay_chosen", "_selected_action": chosen})
    assert list(LogEntry.objects.values_list("object_id", flat=True)) == chosen


def test_without_the_permission_a_replay_is_neither_offered_nor_executed(staff_client, signups):
    path = f"{LIST}{signups['red'].id}/change/"
    for page in (LIST, path):
        assert "replay_chosen" not in staff_client.get(page).content.decode()
    chosen = {"action": "replay_chosen", "_selected_action": [str(signups["red"].id)]}
    for query in ("", "?lights=red"):
        response = staff_client.post(LIST + query, chosen)
        assert response.status_code == 403
        assert "You do not have permission to do this: “Replay: ask the services again”." in response.content.decode()
    assert not LogEntry.objects.exists()


def test_staff_without_permission_to_see_sign_ups_are_refused_with_a_message(admin_client, signups):
    User.objects.filter(user_id="root-user").update(is_superuser=False)
    for path in (LIST, f"{LIST}{signups['red'].id}/change/"):
        response = admin_client.get(path)
        assert response.status_code == 403
        assert "You do not have permission to view or do this." in response.content.decode()


def filter_links(client: Client, query: str = "") -> dict[str, str]:
    """The failure groups that the list offers, with their links."""
    page = client.get(LIST + query).content.decode()
    [block] = re.findall(r'data-filter-title="failure group".*?</details>', page, re.DOTALL) or [""]
    links = re.findall(r'<a href="([^"]*failure=[^"]*)">([^<]*)</a>', block)
    return {html.unescape(words): html.unescape(link) for link, words in links}


def test_failure_groups_count_the_same_service_and_reason_and_filter(admin_client, signups):
    save_decided("another", chat=Status.FAIL, customer=Status.FAIL)
    # Auth has that user, so auth's reason is chat's too.
    save_decided("red-USER", chat=Status.FAIL, customer=Status.SUCCESS)
    links = filter_links(admin_client)
    assert set(links) == {
        "chat: duplicate: userId (3)", "customer: duplicate: userId (1)", "auth: duplicate: userId (1)",
    }  # fmt: skip
    assert shown(admin_client, links["chat: duplicate: userId (3)"]) == {"red-user", "another", "red-USER"}
    assert shown(admin_client, links["customer: duplicate: userId (1)"]) == {"another"}
    assert shown(admin_client, "?failure=gone") == set()


def test_without_a_failure_there_is_no_filter_of_failures(admin_client):
    save_decided("green-user", chat=Status.SUCCESS, customer=Status.SUCCESS)
    assert filter_links(admin_client) == {}


@pytest.fixture
def sent(settings):
    """The messages of the topic, as (sign-up, services asked or None)."""
    settings.KAFKA_PREFIX = f"admin-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])

    def read() -> list[tuple[str, list[str] | None]]:
        messages = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX + NEW_USER_REQUESTED)
        events = [json.loads(message.value) for message in messages]
        return sorted((event["signupId"], event.get("services")) for event in events)

    return read


@pytest.mark.needs("broker")
def test_a_replay_to_one_service_asks_no_other(admin_client, signups, sent):
    chosen = str(signups["green"].id)
    form = {"action": "replay_chosen", "_selected_action": [chosen], "service": "chat"}
    admin_client.post(LIST, form, headers={"accept-language": "ko"})
    assert sent() == [(chosen, ["chat"])]
    # In the log's own language, not in the administrator's.
    [action] = LogEntry.objects.all()
    assert (action.object_id, action.change_message, action.user.user_id) == (chosen, "Replayed to chat", "root-user")


def test_a_replay_to_auth_is_refused(admin_client, signups):
    chosen = {"action": "replay_chosen", "_selected_action": [str(signups["green"].id)], "service": "auth"}
    assert "No action selected." in admin_client.post(LIST, chosen, follow=True).content.decode()
    assert not LogEntry.objects.exists()


@pytest.mark.needs("broker")
def test_all_sign_ups_of_a_filter_are_replayed_by_a_page_that_continues_by_itself(admin_client, sent, monkeypatch):
    monkeypatch.setattr(long_action, "WORKS_FOR", 0)
    monkeypatch.setattr(replay_action, "PAGE", 2)
    chosen = {str(save_decided(f"pending-{n}").id) for n in range(5)}
    save_decided("green-user", chat=Status.SUCCESS, customer=Status.SUCCESS)
    form = {"action": "replay_chosen", "select_across": "1", "_selected_action": [min(chosen)], "service": "chat"}
    told = []
    path = f"{LIST}?lights=pending"
    while 'id="long-action"' in (page := admin_client.post(path, form, follow=True).content.decode()):
        assert "admin/long_action.js" in page
        told += re.findall(r"(\d of \d) are done", page)
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        save_decided(f"begun-meanwhile-{len(told)}")
    assert told == ["2 of 5", "4 of 5"]
    assert "5 sign-ups sent again, 0 skipped, 0 failed." in page
    assert sent() == sorted((each, ["chat"]) for each in chosen)
    assert set(LogEntry.objects.values_list("object_id", flat=True)) == chosen


@pytest.fixture
def own_producer() -> Iterator[None]:
    """Pages publish with the broker of this test's settings."""
    publisher.close()
    yield
    publisher.close()


def test_a_replay_without_kafka_reports_the_outage_and_counts_the_sign_ups_that_were_not_tried(
    admin_client, own_producer, settings, monkeypatch
):
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    monkeypatch.setattr("authsvc.signups.replay.ACKNOWLEDGED_WITHIN", 0.2)
    monkeypatch.setattr(replay_action, "PAGE", 2)
    chosen = [str(save_decided(f"pending-{n}").id) for n in range(5)]
    page = admin_client.post(LIST, {"action": "replay_chosen", "_selected_action": chosen}, follow=True)
    said = page.content.decode()
    assert "0 sign-ups sent again, 0 skipped, 2 failed. 3 were not attempted. Check that Kafka is running" in said


def test_the_index_begins_with_what_needs_attention(admin_client, staff_client, signups, monkeypatch):
    # An earlier test may have loaded signup_sync.asgi, which looks for services that nobody runs: here, all of them.
    monkeypatch.setattr("signup_sync.administration.site.attendance", Attendance())
    SignUp.objects.filter(user_id="pending-user").update(
        stalled_at=timezone.now(), created_at=timezone.now() - timedelta(hours=1)
    )
    DeadLetter.objects.create(
        letter_topic="asked.chat.dlt", letter_partition=0, letter_offset=0, put_aside_at=timezone.now(), topic="asked"
    )
    words = [each["words"] for each in admin_client.get("/admin/").context["attention"]]
    assert words == [
        "Stalled: all attempts used up", "Pending for more than 10 minutes",
        "Refused by a service in the last 24 hours", "Dead letters waiting",
    ]  # fmt: skip
    for each in admin_client.get("/admin/").context["attention"]:
        assert (each["count"], len(admin_client.get(each["url"]).context["cl"].result_list)) == ("1", 1)
    assert len(staff_client.get("/admin/").context["attention"]) == 3
    SignUp.objects.all().delete()
    assert "no dead letter is waiting" in staff_client.get("/admin/").content.decode()


def test_a_light_that_a_removal_turned_red_is_not_counted_or_listed_as_refused(admin_client, signups):
    save_decided("refused-user", chat=Status.FAIL)
    save_decided("unasked-user")
    save_decided("half-asked-user", customer=Status.SUCCESS)
    for signup in SignUp.objects.filter(user_id__in=["refused-user", "unasked-user", "half-asked-user"]):
        signup.take(signup.state.superseded(at=timezone.now()), at=timezone.now())
        signup.save()
    # A service may refuse without a reason.
    SignUp.objects.filter(user_id="pending-user").update(failed_count=2, failures="chat\ncustomer: removed")
    [refused] = [each for each in admin_client.get("/admin/").context["attention"] if "lights=red" in each["url"]]
    assert refused["count"] == "3"
    assert shown(admin_client, refused["url"].removeprefix(LIST)) == {"red-user", "refused-user", "pending-user"}


def test_the_index_groups_what_belongs_together_and_leaves_nothing_out(admin_client):
    groups = admin_client.get("/admin/").context["app_list"]
    names = {group["name"]: [model["object_name"] for model in group["models"]] for group in groups}
    assert names["Sign-ups"] == ["EventTransaction", "UnconfirmedSignUp", "DeadLetter"]
    assert names["Accounts"] == ["User", "Group"]
    assert {*names["Copies at the services"]} == {*(model.__name__ for model in MODELS.values()), "ScimAccount"}
    assert names["Operation"] == ["TrafficMinute", "Topic", "Instance", "Overrides"]
    assert sum(map(len, names.values())) == len(site._registry)


def test_no_script_in_a_name_runs_on_any_page(admin_client):
    """The name is used in every place of a name or a message, including copies, letters and log entries."""
    script = "<script>alert(1)</script>"
    signup = save_decided("scripted")
    for model in MODELS.values():
        model.objects.create(user_id="scripted", email="scripted@example.org", user_name=script)
    letter = DeadLetter.objects.create(
        letter_topic=script, letter_partition=0, letter_offset=0, put_aside_at=timezone.now(), topic=script,
        group=script, key=b"scripted", message=script, error=script,
        value=json.dumps({"signupId": str(signup.id), "userName": script}).encode(),
    )  # fmt: skip
    SignUp.objects.update(user_id=script, failed_count=1, failures=f"chat: {script}")
    LogEntry.objects.log_actions(User.objects.get(user_id="root-user").pk, [signup, letter], 2, script)
    pages = ["/admin/"]
    for model, its_admin in site._registry.items():
        if isinstance(its_admin, PageAdmin):
            continue  # no rows, and tests of its own
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        pages += [base, *(f"{base}{row.pk}/change/" for row in model._default_manager.all())]
    shown_on = 0
    for page in pages:
        said = admin_client.get(page).content.decode()
        assert script not in said, page
        shown_on += html.escape(script) in said
    assert shown_on >= 8


def test_the_list_takes_few_queries(admin_client, signups, django_assert_max_num_queries):
    with django_assert_max_num_queries(10):
        admin_client.get(LIST)


def test_a_user_is_added_with_a_user_id_that_is_free_in_any_case(admin_client):
    fields = {
        "user_id": "ROOT-User", "email": "new@example.com", "user_name": "New", "role": "ROLE_USER",
        "usable_password": "true", "password1": "correct horse 9", "password2": "correct horse 9",
    }  # fmt: skip
    page = admin_client.post("/admin/authsvc/user/add/", fields).content.decode()
    assert "This user ID is taken." in page
    response = admin_client.post("/admin/authsvc/user/add/", fields | {"user_id": "another"})
    assert response.status_code == 302
    assert User.objects.get(user_id_key="another").check_password("correct horse 9")


def test_users_are_found_by_user_id_in_any_case_and_by_email(admin_client):
    response = admin_client.get("/admin/authsvc/user/?q=root")
    assert response.status_code == 200
    assert "root-user" in response.content.decode()
    assert admin_client.get(f"/admin/authsvc/user/{User.objects.get().pk}/change/").status_code == 200


def test_a_stalled_sign_up_is_marked_beside_its_attempts(admin_client, signups):
    SignUp.objects.filter(user_id="pending-user").update(stalled_at=timezone.now(), attempts=33)
    page = admin_client.get(f"{LIST}?lights=stalled").content.decode()
    assert '<td class="field-shown_attempts">33, stalled</td>' in page
