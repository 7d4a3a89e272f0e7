"""Publish the events of an import no faster than the services read them."""

import logging
import math
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from authsvc.signups.backlog import unread_by_service
from eventbus.errors import DeliveryError
from eventbus.inspection.lag import LagReader
from eventbus.messages import Outgoing
from eventbus.producer import Delivery, EventProducer
from runtime.errors import TransientError

logger = logging.getLogger(__name__)

# Unread messages at which publishing pauses, and at which it continues. The embedded broker drops the oldest messages
# of a partition beyond 5 MB, which is about 9,000 of these events.
UNREAD_MAX: Final = 8_000
CONTINUES_BELOW: Final = 4_000
# Seconds between two looks at the unread messages, and seconds without progress after which publishing stops.
CHECK_INTERVAL: Final = 0.1
STUCK_AFTER: Final = 5.0
# Seconds for which nothing is published then, or after Kafka did not accept events.
SUSPENDED_FOR: Final = 20.0
ACKNOWLEDGED_WITHIN: Final = 30.0


class PacedEvents:
    """Publishes events in the background, one batch at a time.

    Events that Kafka or a service does not take now are left out, so that an import never waits for one that is down:
    their sign-ups stay due, and the relay publishes them.
    """

    def __init__(self) -> None:
        self._lag = LagReader()
        self._delivery: Delivery | None = None
        # The unread messages at the last look, and all that were published since. The first look comes late: a Kafka
        # that has just started reports them only after a while.
        self._unread = 0
        self._closed_until = 0.0
        # Events left to the relay.
        self.left_out = 0

    def publish(self, events: Sequence[Outgoing]) -> None:
        """Begin to publish the events, or leave them to the relay. Wait for room, and for the previous batch."""
        if not events:
            return
        if not self._has_room():
            self.left_out += len(events)
            return
        begun = self._producer.begin_all(events, timeout=ACKNOWLEDGED_WITHIN)
        self._unread += len(events)
        self._finish()
        self._delivery = begun

    def close(self) -> None:
        """Wait for the last batch, and close the clients."""
        self._finish()
        if "_producer" in vars(self):
            self._producer.close(timeout=0)
        self._lag.close()

    @cached_property
    def _producer(self) -> EventProducer:
        # Connects on first use: a run that finds all users imported publishes nothing.
        return EventProducer()

    def _finish(self) -> None:
        delivery, self._delivery = self._delivery, None
        try:
            if delivery is not None:
                delivery.wait()
        except DeliveryError as error:
            self._leave(str(error))
            self.left_out += len(error.failed)

    def _leave(self, reason: str) -> None:
        logger.warning("events are left to the relay for now: %s", reason)
        self._closed_until = time.monotonic() + SUSPENDED_FOR
        self._unread = UNREAD_MAX

    def _has_room(self) -> bool:
        if self._unread < UNREAD_MAX:
            return True
        if time.monotonic() < self._closed_until:
            return False
        least, reason = math.inf, ""
        deadline = time.monotonic() + STUCK_AFTER
        while time.monotonic() < deadline:
            try:
                self._unread = max(unread_by_service(self._lag).values())
            except TransientError as error:
                reason = str(error)
            else:
                if self._unread < CONTINUES_BELOW:
                    return True
                if self._unread < least:
                    least, deadline = self._unread, time.monotonic() + STUCK_AFTER
                reason = f"{self._unread} messages are unread"
            time.sleep(CHECK_INTERVAL)
        self._leave(reason)
        return False
