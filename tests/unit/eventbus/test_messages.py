"""Messages: their headers, undecodable values, and dead letters."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from eventbus.messages import (
    HEADER_COST,
    Incoming,
    Outgoing,
    Subscription,
    cloud_event_headers,
    dead_letter,
    decode_each,
)
from eventbus.topics import DEAD_LETTER_MAX
from runtime.errors import PermanentError


def incoming(value: bytes | None, **changes: object) -> Incoming:
    return Incoming(**{"topic": "asked", "partition": 2, "offset": 7, "key": b"key", "value": value} | changes)


def test_a_cloud_event_s_headers_are_those_of_the_kafka_binding():
    headers = cloud_event_headers(type="user.made", source="/auth", traceparent="00-1-2-01")
    rest = dict(headers)
    age = datetime.now(UTC) - datetime.fromisoformat(rest.pop("ce_time").decode())
    assert timedelta(0) <= age < timedelta(seconds=5)
    assert UUID(rest.pop("ce_id").decode())
    assert rest == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_type": b"user.made",
        "ce_source": b"/auth",
        "traceparent": b"00-1-2-01",
    }


def test_a_cloud_event_s_time_is_in_utc_as_rfc_3339_has_it():
    assert dict(cloud_event_headers(type="t", source="s"))["ce_time"].endswith(b"Z")


def test_each_cloud_event_has_a_unique_id_that_contains_its_time():
    ids = [UUID(dict(cloud_event_headers(type="t", source="s"))["ce_id"].decode()) for _ in range(3)]
    assert [one.version for one in ids] == [7, 7, 7]
    assert sorted(set(ids)) == ids


def test_without_a_trace_there_is_no_traceparent():
    assert "traceparent" not in dict(cloud_event_headers(type="t", source="s"))


@pytest.mark.parametrize("value", [b"{", b'"text"', b"\xff", b'{"a":"\xff"}', b"", b"9"])
def test_a_message_that_cannot_be_decoded_is_rejected_alone(value):
    def decode(message: Incoming) -> int:
        number = msgspec.json.decode(message.value, type=int)
        if number == 9:
            raise PermanentError("9 is not for us")
        return number

    good, bad, other = incoming(b"1"), incoming(value), incoming(b"2")
    decoded, rejected = decode_each([good, bad, other], decode)
    assert decoded == [(good, 1), (other, 2)]
    assert [message for message, _ in rejected] == [bad]


def test_a_bug_in_the_decoder_does_not_reject_the_message():
    with pytest.raises(AttributeError):
        decode_each([incoming(None)], lambda message: message.value.decode())


def test_a_dead_letter_is_the_message_with_its_place_and_error(settings):
    settings.KAFKA_PREFIX = "test-"
    message = incoming(b"value", headers=(("trace", b"1"), ("empty", None)), timestamp_ms=1234)
    letter = dead_letter(message, PermanentError("too 큰"), group="readers")
    assert (letter.topic, letter.key, letter.value) == ("asked.readers.dlt", b"key", b"value")
    assert letter.headers[:2] == message.headers
    about = dict(letter.headers[2:])
    assert datetime.fromisoformat(about.pop("dlt-time").decode()).tzinfo is not None
    assert about == {
        "dlt-topic": b"test-asked",
        "dlt-partition": b"2",
        "dlt-offset": b"7",
        "dlt-timestamp": b"1234",
        "dlt-group": b"test-readers",
        "dlt-error": b"runtime.errors.PermanentError",
        "dlt-message": "too 큰".encode(),
    }


def test_a_dead_letter_of_a_message_without_key_or_value_has_none():
    letter = dead_letter(incoming(None, key=None), ValueError("\ud800" * 5000), group="readers")
    assert (letter.key, letter.value) == (None, None)
    assert "dlt-timestamp" not in dict(letter.headers)
    assert dict(letter.headers)["dlt-message"] == b"?" * 2000


def test_a_subscription_knows_all_its_topics():
    subscription = Subscription(
        group="chat", topics=("asked", "told"), handle=lambda batch: None, answers_to=("answered",)
    )
    assert subscription.every_topic == ("asked", "told", "asked.chat.dlt", "told.chat.dlt", "answered")


LARGEST = [
    Incoming("topic", 0, 1, bytes(1_040_000), b"value"),
    Incoming("topic", 0, 1, b"key", b"value", (("big", bytes(1_040_000)),)),
    Incoming("topic", 0, 1, bytes(340_000), bytes(340_000), (("big", bytes(340_000)),)),
    Incoming("topic", 0, 1, b"key", bytes(1_040_000)),
]


def size_of(letter: Outgoing) -> int:
    headers = sum(HEADER_COST + len(name) + len(text or b"") for name, text in letter.headers)
    return len(letter.key or b"") + len(letter.value or b"") + headers


@pytest.mark.parametrize("message", LARGEST)
def test_the_largest_message_is_whole_in_its_dead_letter(message):
    letter = dead_letter(message, ValueError("no " * 5_000), group="group")
    assert (letter.key, letter.value) == (message.key, message.value)
    assert letter.headers[: len(message.headers)] == message.headers
    assert size_of(letter) < DEAD_LETTER_MAX


@pytest.mark.parametrize("message", LARGEST)
def test_a_cut_dead_letter_fits_the_limit_of_other_messages(message):
    letter = dead_letter(message, ValueError("no " * 5_000), group="group", cuts=True)
    assert size_of(letter) < 1_000_000 - 10_000
    about = {name: text for name, text in letter.headers if name.startswith("dlt-")}
    assert {"dlt-value-bytes", "dlt-key-bytes", "dlt-headers-dropped"} & about.keys()


def test_empty_headers_count_towards_the_size():
    """Kafka stores lengths with each header, so many empty ones can fill a message."""
    full = Incoming("asked", 0, 0, None, None, (("", None),) * 110_000)
    letter = dead_letter(full, ValueError("no"), group="readers")
    assert dict(letter.headers)["dlt-headers-dropped"] == b"110000"
    assert len(letter.headers) < 20
