"""Reading the members of a consumer group; tests/contract/test_groups.py asks real Kafka."""

import pytest
from confluent_kafka import KafkaException
from django.conf import settings

from eventbus.inspection.membership import partitions_in, read_memberships
from tests.servers import free_port

TOPIC_A = b"\x00\x01a"
NUMBERS = b"\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x01"


def test_an_outage_of_kafka_is_an_error_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    with pytest.raises(KafkaException):
        read_memberships(timeout=0.2)


@pytest.mark.parametrize(
    ("assignment", "partitions"),
    [
        (b"", ()),
        (b"\x00\x00\x00\x00\x00\x00", ()),
        (
            b"\x00\x00\x00\x00\x00\x01" + TOPIC_A + b"\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x01",
            (("a", 1), ("a", 3)),
        ),
        # Truncated data, an impossible count, and a name that is not UTF-8.
        (b"\x00\x00\x00\x00\x00\x01" + TOPIC_A + NUMBERS[:-4], ()),
        (b"\x00\x00\x7f\xff\xff\xff" + TOPIC_A + b"\x00\x00\x00\x00", ()),
        (b"\x00\x00\x00\x00\x00\x01" + TOPIC_A + b"\xff\xff\xff\xff", ()),
        (b"\x00\x00\x00\x00\x00\x01\x00\x01\xff\x00\x00\x00\x00", ()),
    ],
)
def test_an_assignment_is_decoded_and_an_unreadable_one_is_empty(
    assignment: bytes, partitions: tuple[tuple[str, int], ...]
) -> None:
    assert partitions_in(assignment) == partitions
