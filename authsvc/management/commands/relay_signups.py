"""`manage.py relay_signups`: publish due events again (docs/invariants.md, 2)."""

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from django.core.management.base import BaseCommand
from django.db import close_old_connections

from authsvc.accounts.closing.schedule import remove_closed
from authsvc.metrics import INCOMPLETE, RELAYED, UNCONFIRMED
from authsvc.operations.traffic_history import RollUp
from authsvc.signups import publisher
from authsvc.signups.backlog import unread_by_service
from authsvc.signups.confirmation import delete_expired
from authsvc.signups.events import requested
from authsvc.signups.outbox import DueEvent, claim_due, count_incomplete, give_back_attempts
from authsvc.signups.retention import erase_expired
from authsvc.signups.traffic_counts import LagSampler
from eventbus.errors import DeliveryError
from eventbus.inspection.attendance import attendance
from eventbus.inspection.lag import LagReader
from eventbus.messages import Outgoing
from eventbus.producer import EventProducer
from livesettings.following import Follower
from livesettings.values import live
from runtime.errors import TransientError, is_transient
from runtime.processes.roles import START_CHECKS, check_database, running_role
from runtime.tracing import log_traces

logger = logging.getLogger(__name__)

PAUSE: Final = 1.0
# Less than the time a role has to stop. Messages acknowledged later were still sent in time.
ACKNOWLEDGED_WITHIN: Final = 2.0
# Seconds between counts of the waiting sign-ups.
COUNTED_EVERY: Final = 5.0
# Seconds between checks whether a minute of traffic is complete.
ROLLED_UP_EVERY: Final = 20.0
# Seconds between checks for sign-ups whose ticket has expired, and rows erased per transaction. A full transaction is
# followed by another one at once, so a relay erases faster than an installation accepts sign-ups.
ERASED_EVERY: Final = 60.0
ERASED_AT_ONCE: Final = 2000
# Closed accounts removed between two looks at the outbox.
REMOVED_AT_ONCE: Final = 100
# Share of RELAY_RATE used while one second's worth of events is unread.
SHARE_WHEN_BEHIND: Final = 0.1


class Command(BaseCommand):
    help = (
        "Publish the events of sign-ups, changes and removals again, with growing pauses, until every service has "
        "answered or the attempts are used up. Any number of relays can run: each due event is claimed by one. Stops "
        "after SIGTERM."
    )
    requires_system_checks = (START_CHECKS,)

    def handle(self, **options: Any) -> None:
        with running_role("relay") as role:
            if not role.wait_for("its database", partial(check_database, "authsvc")):
                return
            relay = OutboxRelay(role.stop)
            follower = Follower()
            follower.start()
            attendance.start()
            role.ready()
            while not role.stop.is_set():
                role.beat()
                relay.relay_once()
                relay.count_incomplete()
                relay.roll_up_traffic()
                relay.erase_expired()
                relay.remove_closed()
                # At most one second's worth of events, then a pause: RELAY_RATE events per second.
                role.stop.wait(PAUSE)
            attendance.close()
            follower.close()
            relay.close()


@contextmanager
def _retried_later(work: str) -> Iterator[None]:
    """Log a transient error of one of the relay's tasks, which runs again later, and leave broken connections."""
    try:
        yield
    except Exception as error:
        if not is_transient(error):
            raise
        logger.warning("the relay cannot %s now and will retry: %s", work, error)
    finally:
        close_old_connections()


class OutboxRelay:
    """Publish due events at RELAY_RATE per second, and at a tenth of it while a consumer is behind.

    Sending unread requests again would only bury a slow consumer (docs/adr/0002).
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._producer = EventProducer()
        self._lag = LagReader(stop)
        self._sampler = LagSampler()
        self._count_from = 0.0
        self._roll_up = RollUp()
        self._roll_up_from = 0.0
        self._erase_from = 0.0
        self._remove_from = 0.0

    def relay_once(self) -> int:
        """Claim and publish due events, at most one second's worth. Return how many were acknowledged.

        Events that fail stay claimed and are due again after their pause, so giving up here loses nothing.
        """
        with _retried_later("publish events"):
            limit = self._rate()
            # While Kafka is down, asking it for the lag takes seconds, and publishing would take as long again.
            if not self._stop.is_set():
                return self._publish(claim_due(limit=limit))
        return 0

    def count_incomplete(self) -> None:
        """Count waiting sign-ups for /metrics every COUNTED_EVERY seconds; the metrics are NaN while that fails."""
        if time.monotonic() < self._count_from:
            return
        self._count_from = time.monotonic() + COUNTED_EVERY
        counts = dict.fromkeys(("waiting", "due", "stalled"), math.nan)
        with _retried_later("count incomplete transactions"):
            counts |= count_incomplete()
        for state, count in counts.items():
            INCOMPLETE.labels(state).set(count)

    def roll_up_traffic(self) -> None:
        """Store the last minute's figures for the traffic page, once a minute. The next run makes up for a failure."""
        if time.monotonic() < self._roll_up_from:
            return
        self._roll_up_from = time.monotonic() + ROLLED_UP_EVERY
        with _retried_later("roll up traffic"):
            self._roll_up.run()

    def erase_expired(self) -> None:
        """Once a minute, erase the hashes of sign-ups whose ticket has expired (docs/adr/0040) and delete sign-ups that
        were not confirmed in time (docs/adr/0042). Retry a second after an error."""
        if time.monotonic() < self._erase_from:
            return
        with _retried_later("erase expired sign-ups"):
            unconfirmed = delete_expired(ERASED_AT_ONCE)
            UNCONFIRMED.labels("expired").inc(unconfirmed)
            if max(erase_expired(ERASED_AT_ONCE), unconfirmed) < ERASED_AT_ONCE:
                self._erase_from = time.monotonic() + ERASED_EVERY

    def remove_closed(self) -> None:
        """Once a minute, remove the accounts whose owners closed them and whose grace period is over."""
        if time.monotonic() < self._remove_from:
            return
        with _retried_later("remove closed accounts"):
            if remove_closed(REMOVED_AT_ONCE) < REMOVED_AT_ONCE:
                self._remove_from = time.monotonic() + ERASED_EVERY

    def close(self) -> None:
        """Close the clients."""
        publisher.close()
        self._producer.close(timeout=0)
        self._lag.close()

    def _rate(self) -> int:
        rate = live.RELAY_RATE
        try:
            is_behind = self._unread() >= rate
        except TransientError as error:
            # Unknown lag is acceptable: after a restart Kafka may accept messages a minute before it reports groups.
            logger.warning("the relay slows down because the lag is unknown: %s", error)
            is_behind = True
        return max(1, int(rate * SHARE_WHEN_BEHIND)) if is_behind else rate

    def _unread(self) -> int:
        unread = unread_by_service(self._lag)
        self._sampler.sample(unread)
        return max(unread.values())

    def _publish(self, events: Sequence[DueEvent]) -> int:
        of_message = {_message(event): event.transaction.id for event in events}
        try:
            self._producer.send_all(list(of_message), timeout=ACKNOWLEDGED_WITHIN)
        except DeliveryError as error:
            # An attempt without Kafka does not count: otherwise an outage would use up all attempts.
            give_back_attempts([of_message.pop(message) for message in error.failed])
            logger.warning("%s", error)
        sent = list(of_message.values())
        RELAYED.inc(len(sent))
        log_traces(logger, "events published again: %d", sent)
        return len(sent)


def _message(event: DueEvent) -> Outgoing:
    return requested(event.transaction, event.record, attempt=event.attempt, services=event.services)
