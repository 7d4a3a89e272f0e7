"""Dead letters in the administration."""

import html
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from eventbus.deadletters import letters
from eventbus.models import DeadLetter, DeadLetterAction
from eventbus.topics import ensure_topics
from tests.broker import read
from tests.users import client_with

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/eventbus/deadletter/"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def handler() -> Client:
    """Staff who may see, replay and discard letters."""
    return client_with("view_deadletter", "handle_deadletter", user_id="handler")


@pytest.fixture
def viewer() -> Client:
    return client_with("view_deadletter", user_id="viewer")


def new_letter(offset: int = 0, **fields: object) -> DeadLetter:
    about = {
        "letter_topic": "asked.chat.dlt", "letter_partition": 0, "letter_offset": offset, "topic": "asked",
        "group": "chat", "partition": 3, "offset": 17, "put_aside_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "key": b"kim", "value": b'{"userId":"kim"}', "error": "builtins.ValueError", "message": "no",
    }  # fmt: skip
    return DeadLetter.objects.create(**about | fields)


def shown(client: Client, query: str = "") -> set[int]:
    response = client.get(LIST + query)
    assert response.status_code == 200
    return {letter.pk for letter in response.context["cl"].result_list}


def act(client: Client, action: str, *letters: DeadLetter, **fields: str) -> str:
    """The text of the page after an action."""
    chosen = {"action": action, "_selected_action": [letter.pk for letter in letters], **fields}
    return html.unescape(client.post(LIST, chosen, follow=True).content.decode())


def states() -> list[str]:
    return list(DeadLetter.objects.order_by("pk").values_list("state", flat=True))


@pytest.fixture
def own_topics(settings):
    settings.KAFKA_PREFIX = f"letters-{uuid4()}-"
    ensure_topics(["asked"])


@pytest.mark.parametrize(
    ("query", "offsets"),
    [
        ("", {0, 1, 2}),
        ("?state__exact=waiting", {0, 1}),
        ("?group=chat", {0, 2}),
        ("?topic=told", {1}),
        ("?error=builtins.TypeError", {2}),
        ("?q=lee", {1}),
        ("?q=le", set()),
        ("?q=typeerr", {2}),
    ],
)
def test_it_filters_and_searches(viewer, query, offsets):
    new_letter(0)
    new_letter(1, topic="told", group="auth", key=b"lee")
    new_letter(2, error="builtins.TypeError", state="replayed")
    found = DeadLetter.objects.filter(pk__in=shown(viewer, query)).values_list("letter_offset", flat=True)
    assert set(found) == offsets


def test_each_filter_value_has_its_number_of_letters(viewer):
    new_letter(0)
    new_letter(1)
    new_letter(2, group="auth", state="discarded")
    page = " ".join(viewer.get(LIST).content.decode().split())
    for words in ("waiting (2)", "replayed (0)", "discarded (1)", "chat (2)", "auth (1)", "builtins.ValueError (3)"):
        assert words in page


def test_a_page_of_the_list_reads_no_value_and_takes_few_queries(viewer, django_assert_max_num_queries):
    for offset in range(30):
        new_letter(offset)
    with django_assert_max_num_queries(9) as queries:
        viewer.get(LIST)
    assert not [query for query in queries.captured_queries if '"value"' in query["sql"]]


def test_a_letter_shows_its_error_origin_headers_and_value_and_no_script_of_it_runs(viewer):
    letter = new_letter(
        value=b'{"userId":"%b"}' % SCRIPT.encode(), key=SCRIPT.encode(), headers=[[SCRIPT, SCRIPT], ["trace", "1"]],
        message=f"{SCRIPT} is no name", error=SCRIPT, topic=SCRIPT, group=SCRIPT,
    )  # fmt: skip
    for path in (LIST, f"{LIST}{letter.pk}/change/"):
        page = viewer.get(path).content.decode()
        assert SCRIPT not in page
        assert html.escape(SCRIPT) in page
    assert f"{html.escape(SCRIPT)}[3] at 17" in page
    assert "asked.chat.dlt[0] at 0" in page
    assert "trace: 1" in page
    assert f"{{\n  &quot;userId&quot;: &quot;{html.escape(SCRIPT)}&quot;\n}}" in page
    assert "None yet." in page


def test_a_long_value_is_truncated_on_the_page_and_an_absent_one_is_marked(viewer):
    long = viewer.get(f"{LIST}{new_letter(0, value=b'x' * 900_000).pk}/change/").content.decode()
    assert len(long) < 100_000
    assert "manage.py dead_letters show" in long
    none = viewer.get(f"{LIST}{new_letter(1, value=None, key=None).pk}/change/").content.decode()
    assert "The message has no value." in none


def test_a_letter_can_be_neither_added_changed_nor_deleted(handler):
    letter = new_letter()
    assert handler.get(f"{LIST}add/").status_code == 403
    assert handler.post(f"{LIST}{letter.pk}/change/", {"state": "replayed"}).status_code == 403
    assert handler.post(f"{LIST}{letter.pk}/delete/", {"post": "yes"}).status_code == 403
    assert states() == ["waiting"]


@pytest.mark.needs("broker")
def test_a_replay_sends_the_message_and_leaves_an_audit_row(handler, own_topics):
    letter = new_letter(headers=[["trace", "1"]])
    assert "1 message sent again." in act(handler, "replay_chosen", letter)
    [message] = read("asked", 1)
    assert (message.key(), message.value(), message.headers()) == (b"kim", b'{"userId":"kim"}', [("trace", b"1")])
    assert states() == ["replayed"]
    assert [(each.letter_id, each.action, each.by) for each in DeadLetterAction.objects.all()] == [
        (letter.pk, "replayed", "handler, in the admin")
    ]
    page = handler.get(f"{LIST}{letter.pk}/history/", follow=True).content.decode()
    assert "handler, in the admin" in page


@pytest.mark.needs("broker")
def test_a_replayed_letter_is_refused_unless_again_is_chosen(handler, own_topics):
    letter = new_letter(state="replayed")
    said = act(handler, "replay_chosen", letter)
    assert f"{letter.pk}: It has already been replayed." in said
    assert "0 messages sent again." in said
    assert "1 message sent again." in act(handler, "replay_chosen", letter, again="on")


def test_without_kafka_the_outage_is_reported_and_the_letter_waits(handler, settings, monkeypatch):
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    monkeypatch.setattr(letters, "ACKNOWLEDGED_WITHIN", 0.2)
    assert "Kafka did not accept every message" in act(handler, "replay_chosen", new_letter())
    assert states() == ["waiting"]


def test_a_letter_is_discarded_with_a_reason_only(handler):
    first, second, third = (new_letter(offset) for offset in range(3))
    assert "Enter a reason for discarding" in act(handler, "discard_chosen", first, reason=" ")
    assert states() == ["waiting"] * 3
    assert "2 letters discarded." in act(handler, "discard_chosen", first, second, reason="a test of the sender")
    assert states() == ["discarded", "discarded", "waiting"]
    assert set(DeadLetterAction.objects.values_list("by", "reason")) == {
        ("handler, in the admin", "a test of the sender")
    }
    assert third.actions.count() == 0
    logged = LogEntry.objects.values_list("object_id", "change_message")
    assert set(logged) == {(str(letter.pk), "Discarded") for letter in (first, second)}


def test_without_the_permission_letters_can_be_neither_replayed_nor_discarded(viewer):
    letter = new_letter()
    for path in (LIST, f"{LIST}{letter.pk}/change/"):
        page = viewer.get(path).content.decode()
        assert "replay_chosen" not in page
        assert "discard_chosen" not in page
    for action, words in (("discard_chosen", "Discard, with a reason"), ("replay_chosen", "Replay: send it again")):
        assert f"You do not have permission to do this: “{words}”." in act(viewer, action, letter, reason="I may not")
    assert states() == ["waiting"]
    assert not DeadLetterAction.objects.exists()


def test_without_the_view_permission_no_letter_is_shown(db):
    client = client_with(user_id="other")
    assert client.get(LIST).status_code == 403
    assert client.get(f"{LIST}{new_letter().pk}/change/").status_code == 403


def test_a_letters_page_offers_the_actions(handler):
    letter = new_letter()
    page = handler.get(f"{LIST}{letter.pk}/change/").content.decode()
    assert f'<input type="hidden" name="_selected_action" value="{letter.pk}">' in page
    assert 'value="replay_chosen"' in page
    assert 'name="again"' not in page
    DeadLetter.objects.update(state="discarded")
    assert 'name="again"' in handler.get(f"{LIST}{letter.pk}/change/").content.decode()
