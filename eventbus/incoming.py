"""What Kafka's client hands over, as handlers get it."""

import logging
from operator import methodcaller
from typing import Final, cast

from confluent_kafka import KafkaException, Message

from eventbus.clients import unprefixed
from eventbus.errors import is_fatal
from eventbus.messages import Header, Incoming

logger = logging.getLogger(__name__)


# Message.headers(). Where a header's name is not UTF-8 it leaves an error behind without saying so. A call from C finds
# it at once; the interpreter's own quick way to call overlooks it, and whatever comes next would raise it.
_headers_of: Final = methodcaller("headers")


def is_error_report(message: Message) -> bool:
    """Whether it is no message but the client's report of an error, which is logged. Raises a fatal one."""
    error = message.error()
    if error is None:
        return False
    if is_fatal(error):
        raise KafkaException(error)
    logger.warning("Kafka reports: %s", error.str())
    return True


def as_incoming(message: Message) -> Incoming:
    """The message as handlers get it."""
    kind_of_time, timestamp = message.timestamp()
    try:
        headers = cast("list[Header]", _headers_of(message) or [])  # a list, whatever produce() would take
    except (SystemError, UnicodeError):
        # A name that is not UTF-8: confluent-kafka can't give any of them, and a second call gives a broken list.
        headers = []
    return Incoming(
        topic=unprefixed(message.topic() or ""),
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers=tuple(headers),
        timestamp_ms=timestamp if kind_of_time else None,
    )
