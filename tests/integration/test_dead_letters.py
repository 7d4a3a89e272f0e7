"""Dead letters: from the topic to the table, and the actions on them there."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.utils import timezone

from eventbus import group_member
from eventbus.deadletters import collector, letters
from eventbus.deadletters.collector import DeadLetterCollector
from eventbus.deadletters.letters import Origin, Origins, purge_dead_letters, store_letters
from eventbus.messages import (
    Header,
    Incoming,
    dead_letter,
)
from eventbus.models import DeadLetter, DeadLetterAction
from eventbus.producer import EventProducer
from eventbus.topics import MESSAGE_MAX, ensure_topics
from runtime.errors import PermanentError
from tests.broker import put, read
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.django_db(transaction=True)
needs_broker = pytest.mark.needs("broker")

LETTERS = "asked.readers.dlt"
ORIGINS: Origins = {
    LETTERS: Origin("asked", "readers"),
    "told.auth.dlt": Origin("told", "auth"),
}
ODD_HEADERS: tuple[Header, ...] = (
    ("ce_id", b"1"),
    ("ce_id", b"2"),
    ("not UTF-8", b"\xff\xfe"),
    ("NUL", b"a\x00b"),
    ("큰", "값".encode()),
    ("empty", b""),
    ("null", None),
)
SENT_AT = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _own_topics(settings):
    settings.KAFKA_PREFIX = f"letters-{uuid4()}-"


@pytest.fixture
def topics():
    ensure_topics([*ORIGINS, "asked", "told"])


def asked(value: bytes | None = b"no JSON", key: bytes | None = b"kim", headers: tuple[Header, ...] = ()) -> Incoming:
    return Incoming("asked", 3, 17, key, value, headers, int(SENT_AT.timestamp() * 1000))


def letter(offset: int = 0, *, partition: int = 0, at: datetime = SENT_AT, **message: object) -> Incoming:
    """A dead letter as the collector reads it."""
    written = dead_letter(asked(**message), PermanentError("no reader"), group="readers")
    at_ms = int(at.timestamp() * 1000)
    return Incoming(LETTERS, partition, offset, written.key, written.value, written.headers, at_ms)


def kept(count: int = 1, **message: object) -> list[DeadLetter]:
    """Save this many waiting letters."""
    store_letters([letter(offset, **message) for offset in range(count)], ORIGINS)
    return list(DeadLetter.objects.order_by("-pk")[:count][::-1])


@contextmanager
def collecting() -> Iterator[DeadLetterCollector]:
    stop, running = threading.Event(), DeadLetterCollector(ORIGINS)

    def run() -> None:
        try:
            running.run(stop)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield running
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def command(*arguments: object) -> str:
    out = StringIO()
    call_command("dead_letters", *map(str, arguments), stdout=out, stderr=out)
    return out.getvalue()


def refused(*arguments: object) -> str:
    """The output of the command when it ends with an error; its own message is the last line."""
    out = StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("dead_letters", *map(str, arguments), stdout=out, stderr=out)
    assert raised.value.returncode == 1
    return f"{out.getvalue()}{raised.value}"


# --- From the topic to the table --------------------------------------------------------------------------------


@needs_broker
def test_a_letter_is_collected_and_its_replay_is_the_message_as_it_was(topics):
    producer = EventProducer()
    error = PermanentError("it has a \x00 in it")
    producer.send_all([dead_letter(asked(b"\x00\xff", b"\xfe", ODD_HEADERS), error, group="readers")], timeout=10)
    producer.close(1)
    with collecting():
        row = eventually(DeadLetter.objects.first)
    assert (row.topic, row.partition, row.offset, row.group, row.sent_at) == ("asked", 3, 17, "readers", SENT_AT)
    assert (row.error, row.message) == ("runtime.errors.PermanentError", "it has a \ufffd in it")
    assert (row.letter_topic, row.state) == (LETTERS, "waiting")
    assert abs(row.put_aside_at - timezone.now()) < timedelta(minutes=1)
    assert command("replay", row.pk) == "1 replayed, 0 refused, 0 not tried or failed\n"
    [message] = read("asked", 1)
    assert (message.key(), message.value(), tuple(message.headers())) == (b"\xfe", b"\x00\xff", ODD_HEADERS)


@needs_broker
def test_every_topic_is_collected_also_after_a_restart_and_nothing_twice(topics):
    put(LETTERS, b"first", partition=0)
    put("told.auth.dlt", b"second", partition=3)
    with collecting():
        eventually(lambda: DeadLetter.objects.count() == 2)
    put(LETTERS, b"third", partition=0)
    with collecting():
        eventually(lambda: DeadLetter.objects.count() == 3)
    rows = DeadLetter.objects.order_by("pk")
    assert sorted((row.topic, row.group, bytes(row.value)) for row in rows) == [
        ("asked", "readers", b"first"),
        ("asked", "readers", b"third"),
        ("told", "auth", b"second"),
    ]


@needs_broker
def test_while_the_database_is_down_the_letters_wait(topics, monkeypatch, caplog):
    failures = iter([OperationalError("the server is gone"), OperationalError("the server is gone")])

    def keep_at_last(*arguments: object) -> None:
        if failure := next(failures, None):
            raise failure
        store_letters(*arguments)

    monkeypatch.setattr(collector, "store_letters", keep_at_last)
    monkeypatch.setattr(collector, "FIRST_PAUSE", 0.01)
    put(LETTERS, b"patient")
    with collecting():
        eventually(DeadLetter.objects.exists)
    assert caplog.text.count("1 dead letters can't be stored yet: the server is gone") == 2


@needs_broker
def test_a_collector_that_lost_its_partitions_and_gets_no_others_joins_again(topics, monkeypatch):
    monkeypatch.setattr(group_member, "REJOINS_AFTER", 6.0)
    put(LETTERS, b"early")
    with collecting() as running:
        eventually(DeadLetter.objects.exists)
        # Between two polls, on its own thread, the client leaves the group: nothing will give it partitions again.
        client, beat = running._consumer, running._heartbeat.beat
        leave = iter([client.unsubscribe])
        monkeypatch.setattr(running._heartbeat, "beat", lambda: (next(leave, beat)(), beat()))
        eventually(lambda: running._member.awaits_assignment, what="its partitions are gone")
        put(LETTERS, b"late")
        eventually(lambda: DeadLetter.objects.count() == 2)


def test_a_letter_is_kept_once_however_often_it_is_read():
    for _ in range(2):
        store_letters([letter(0), letter(1), letter(0, partition=1), letter(0)], ORIGINS)
    assert DeadLetter.objects.count() == 3


def test_letters_at_the_same_positions_of_a_recreated_topic_are_new_letters():
    store_letters([letter(0)], ORIGINS)
    store_letters([letter(0, at=SENT_AT + timedelta(milliseconds=1))], ORIGINS)
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("dlt-partition", b"none"), ("dlt-offset", b"-1"), ("dlt-timestamp", b"9" * 5000)),
        (("dlt-partition", b"9" * 30), ("dlt-offset", b""), ("dlt-timestamp", b"9" * 18)),
        (("dlt-error", b"\xff\x00" * 5000), ("dlt-message", None), ("dlt-topic", b"../admin")),
        ODD_HEADERS,
    ],
)
@pytest.mark.parametrize("timestamp_ms", [None, 10**17])
def test_a_message_written_by_hand_to_the_dead_letter_topic_is_kept(headers, timestamp_ms):
    store_letters([Incoming(LETTERS, 0, 0, None, None, headers, timestamp_ms)], ORIGINS)
    row = DeadLetter.objects.get()
    assert (row.topic, row.group) == ("asked", "readers")
    assert (row.partition, row.offset, row.sent_at) == (None, None, None)
    assert str(row.pk) in command("list")
    assert "asked[?] at ?" in command("show", row.pk)


def test_a_message_cannot_forge_the_headers_of_its_dead_letter():
    forged = (("dlt-value-bytes", b"7"), ("dlt-offset", b"99"), ("trace", b"1"))
    [row] = kept(headers=forged)
    assert (row.cut, row.offset, row.headers) == ("", 17, [["trace", "1"]])


# --- Replay and discard -----------------------------------------------------------------------------------------


@needs_broker
def test_a_replayed_letter_is_refused_without_the_option_again(topics):
    first, second = kept(2)
    assert "1 replayed, 0 refused" in command("replay", first.pk)
    said = refused("replay", first.pk, second.pk)
    assert f"{first.pk}: It has already been replayed." in said
    assert "1 replayed, 1 refused" in said
    assert f"{first.pk}: It has already been replayed." in refused("discard", first.pk, "--reason", "tired of it")
    assert "1 replayed, 0 refused" in command("replay", first.pk, "--again")
    assert len(read("asked", 3)) == 3
    assert [each.action for each in first.actions.all()] == ["replayed", "replayed"]


@needs_broker
def test_all_waiting_letters_that_match_the_filters_are_replayed_across_chunks(topics, monkeypatch):
    monkeypatch.setattr(letters, "CHUNK", 3)
    kept(10)
    others = letter(99)
    store_letters([Incoming("told.auth.dlt", 0, 0, b"lee", b"other", others.headers, others.timestamp_ms)], ORIGINS)
    assert "10 replayed" in command("replay", "--all-waiting", "--group", "readers")
    assert set(DeadLetter.objects.filter(group="auth").values_list("state", flat=True)) == {"waiting"}
    assert "1 replayed" in command("replay", "--all-waiting")
    assert [message.value() for message in read("told", 1)] == [b"other"]
    assert command("replay", "--all-waiting") == "0 replayed, 0 refused, 0 not tried or failed\n"


@needs_broker
@pytest.mark.parametrize(
    ("large", "said"),
    [
        ({"value": bytes(MESSAGE_MAX + 1)}, f"value of {MESSAGE_MAX + 1} bytes"),
        ({"key": bytes(MESSAGE_MAX + 1)}, f"key of {MESSAGE_MAX + 1} bytes"),
        ({"headers": (("a", bytes(MESSAGE_MAX)), ("b", b""))}, "2 headers"),
    ],
)
def test_a_truncated_letter_is_not_replayed(topics, large, said):
    [row] = kept(**large)
    assert f"Truncated    {said}" in command("show", row.pk)
    for again in ((), ("--again",)):
        words = refused("replay", row.pk, *again)
        assert f"{row.pk}: It was truncated to fit ({said}), so it cannot be replayed." in words
        assert "0 replayed, 1 refused" in words
    assert not DeadLetterAction.objects.exists()
    assert "1 discarded" in command("discard", row.pk, "--reason", "its sender sent it again")


@needs_broker
@pytest.mark.parametrize("size", [900_000, 900_001, 999_000, MESSAGE_MAX - 1_000])
def test_the_largest_message_that_kafka_accepts_is_kept_and_replayed_whole(topics, size):
    value = secrets.token_bytes(size)
    [row] = kept(value=value)
    assert "1 replayed" in command("replay", row.pk)
    assert [message.value() for message in read("asked", 1)] == [value]


def test_without_kafka_no_letter_is_marked_as_replayed(settings, monkeypatch):
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    monkeypatch.setattr(letters, "ACKNOWLEDGED_WITHIN", 0.2)
    monkeypatch.setattr(letters, "CHUNK", 1)
    first, second = kept(2)
    said = refused("replay", first.pk, second.pk)
    assert "0 replayed, 0 refused, 2 not tried or failed" in said
    assert "Kafka at 127.0.0.1:1 did not acknowledge the rest, which are still waiting" in said
    assert set(DeadLetter.objects.values_list("state", flat=True)) == {"waiting"}
    assert not DeadLetterAction.objects.exists()


def test_a_discarded_letter_records_author_time_and_reason():
    first, second = kept(2)
    assert "1 discarded" in command("discard", first.pk, "--reason", "a test of the sender")
    action = DeadLetterAction.objects.get()
    assert (action.letter_id, action.action, action.reason) == (first.pk, "discarded", "a test of the sender")
    assert action.by.endswith(", by command")
    assert abs(action.at - timezone.now()) < timedelta(minutes=1)
    assert "a test of the sender" in command("show", first.pk)
    second.refresh_from_db()
    assert second.state == "waiting"


@needs_broker
@pytest.mark.parametrize("action", ["replay", "discard"])
@pytest.mark.parametrize(
    ("before", "said"), [("replay", "It has already been replayed."), ("discard", "It has already been discarded.")]
)
def test_a_handled_letter_is_handled_again_only_with_the_option_again(topics, action, before, said):
    arguments = {"replay": [], "discard": ["--reason", "tired of it"]}
    done, waits = kept(2)
    command(before, done.pk, *arguments[before])
    refusal = refused(action, done.pk, waits.pk, *arguments[action])
    assert f"{done.pk}: {said}" in refusal
    assert f"{waits.pk}:" not in refusal
    command(action, done.pk, *arguments[action], "--again")
    assert [each.action for each in done.actions.order_by("pk")] == [f"{before}ed", f"{action}ed"]
    # Those that were refused were not sent either.
    assert len(read("asked", [before, action, action].count("replay"))) == [before, action, action].count("replay")


def test_an_unknown_letter_is_reported():
    [row] = kept()
    said = refused("discard", row.pk, row.pk + 1, "--reason", "gone")
    assert f"{row.pk + 1}: There is no such letter." in said
    assert "1 discarded, 1 refused" in said
    assert f"no dead letter {row.pk + 1}" in refused("show", row.pk + 1)


@pytest.mark.parametrize(
    "arguments",
    [("replay",), ("replay", 1, "--all-waiting"), ("replay", 1, "--group", "readers"), ("discard", "--reason", "why")],
)
def test_a_replay_without_a_selection_is_refused_with_a_message(arguments):
    assert "--all-waiting" in refused(*arguments)


# --- Seeing them ------------------------------------------------------------------------------------------------


def test_an_empty_list_is_reported():
    assert command("list") == "No dead letters.\n"
    assert command("list", "--state", "replayed") == "There is no dead letter of this kind.\n"


def test_the_list_has_the_newest_first_and_counts():
    first, second, third = kept(3)
    DeadLetter.objects.filter(pk=first.pk).update(state="replayed")
    head, *lines, counts = command("list", "--limit", 2).splitlines()
    assert head.split()[:3] == ["ID", "WRITTEN", "STATE"]
    assert [int(line.split()[0]) for line in lines] == [third.pk, second.pk]
    assert " ".join(lines[0].split()[1:]) == (
        "2026-03-01 12:00:00 waiting readers asked[3] at 17 kim PermanentError: no reader"
    )
    assert counts == "3 in all, the newest 2 of them shown: 1 replayed, 2 waiting"


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (("--topic", "asked"), 1), (("--topic", "told"), 0), (("--group", "readers"), 1), (("--group", "auth"), 0),
        (("--error", "permanent"), 1), (("--error", "TypeError"), 0), (("--state", "waiting"), 1),
        (("--state", "discarded"), 0), (("--since", "2026-03-01"), 1), (("--since", "2026-03-01T12:00:01Z"), 0),
    ],
)  # fmt: skip
def test_the_list_is_filtered(filters, count):
    kept()
    assert ("1 in all" in command("list", *filters)) is bool(count)


def test_show_prints_the_whole_letter_with_json_indented():
    value = '{"userId":"김","tags":[1]}'.encode()
    [row] = kept(value=value, headers=ODD_HEADERS)
    lines = command("show", row.pk).splitlines()
    assert f"Dead letter  {row.pk}, waiting" in lines
    assert "Error        runtime.errors.PermanentError" in lines
    assert "             no reader" in lines
    assert "Message      asked[3] at 17" in lines
    assert "Header       not UTF-8: \\xff\\xfe" in lines
    assert "Header       NUL: a\\x00b" in lines
    assert lines[lines.index(f"Value, {len(value)} bytes:") + 1 :] == [
        "{", '  "userId": "김",', '  "tags": [', "    1", "  ]", "}",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [b"\x1b]0;owned\x07", b'{"a":"\x1b[2J"}', b"[" * 100_000, b"\xff\x1b"])
def test_control_characters_of_a_letter_are_escaped(value):
    [row] = kept(value=value, key=b"\x1b[31mkim\r\n", headers=(("\x1b[1m", b"\x1b[0m\x9b"),))
    for said in (command("show", row.pk), command("list")):
        assert all(character.isprintable() or character == "\n" for character in said)
    assert "\\x1b[31mkim" in command("list")


def test_the_help_describes_each_subcommand(capsys):
    for arguments in (("--help",), ("replay", "--help")):
        with pytest.raises(SystemExit) as ended:
            call_command("dead_letters", *arguments)
        assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Show, replay or discard dead letters: messages that a consumer could not handle" in said
    assert "Every consumer group of the topic reads them, which is harmless" in said


# --- Their end --------------------------------------------------------------------------------------------------


def test_a_purge_deletes_the_oldest_letters_with_their_actions_up_to_the_limit():
    store_letters([letter(day, at=SENT_AT + timedelta(days=day)) for day in range(5)], ORIGINS)
    oldest = DeadLetter.objects.order_by("put_aside_at")[0]
    command("discard", oldest.pk, "--reason", "old")
    before = SENT_AT + timedelta(days=3)
    assert purge_dead_letters(before, 2) == 2
    assert not DeadLetterAction.objects.exists()
    assert purge_dead_letters(before, 2) == 1
    assert purge_dead_letters(before, 2) == 0
    assert sorted(row.letter_offset for row in DeadLetter.objects.all()) == [3, 4]
