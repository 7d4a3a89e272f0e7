"""Convert the Kafka client's messages into the form that handlers receive."""

import logging
from operator import methodcaller
from typing import Final, cast

from confluent_kafka import KafkaException, Message

from eventbus.clients import unprefixed
from eventbus.errors import is_fatal
from eventbus.messages import Header, Incoming

logger = logging.getLogger(__name__)


# Calls Message.headers(). If a header's name is not UTF-8, that method sets an exception without signalling it. A call
# from C, as here, raises it at once; the interpreter's fast call path misses it, and an unrelated later call raises it.
_headers_of: Final = methodcaller("headers")


def is_error_report(message: Message) -> bool:
    """Whether this is not a message but the client's report of an error, which is logged. Raises a fatal error."""
    error = message.error()
    if error is None:
        return False
    if is_fatal(error):
        raise KafkaException(error)
    logger.warning("Kafka reports: %s", error.str())
    return True


def as_incoming(message: Message) -> Incoming:
    """Return the message in the form that handlers receive."""
    kind_of_time, timestamp = message.timestamp()
    try:
        headers = cast("list[Header]", _headers_of(message) or [])  # Always a list, though produce() takes other types.
    except (SystemError, UnicodeError):
        # With a name that is not UTF-8, confluent-kafka can't return any header; a second call returns a broken list.
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
