"""Publish the events of committed transactions from pages and commands.

An event that Kafka doesn't accept is not lost: its transaction stays due until every service has answered.
"""

import logging
from collections.abc import Iterable
from functools import cache
from threading import Lock
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from eventbus.messages import Outgoing
from eventbus.producer import EventProducer

logger = logging.getLogger(__name__)

# Seconds to deliver the last events to Kafka when a command ends.
LEAVES_WITHIN: Final = 2.0


_creating: Final = Lock()


@cache
def _create() -> EventProducer:
    return EventProducer()


def producer() -> EventProducer:
    """Return the producer that all pages of this process share."""
    # Two first calls at once would create two producers, and nobody would close one of them.
    with _creating:
        return _create()


def publish(events: Iterable[Outgoing]) -> None:
    """Queue the events and return at once. Pages don't wait for Kafka.

    A command may run where no broker is known, such as beside a `make run` that has ended: then the relay publishes.
    """
    try:
        shared = producer()
    except ImproperlyConfigured as error:
        logger.info("the relay will publish the events: %s", error)
        return
    for event in events:
        shared.send(event)


def close(within: float = LEAVES_WITHIN) -> None:
    """Deliver the queued events, if there are any, before the process ends. This takes at most `within` seconds."""
    if _create.cache_info().currsize:
        producer().close(within)
        _create.cache_clear()
