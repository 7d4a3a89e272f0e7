"""`manage.py relay_signups`: publishes again what is due (DESIGN, invariant 2)."""

import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from django.core.management.base import BaseCommand
from django.db import close_old_connections

from authsvc.lights import AUTH, participants
from authsvc.metrics import INCOMPLETE, RELAYED, UNCONFIRMED
from authsvc.operations.traffic_history import RollUp
from authsvc.signups.confirmation import delete_expired
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED, new_user_requested
from authsvc.signups.outbox import DueEvent, claim_due, count_incomplete, give_back_tries
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
# Less than a role has to stop in. What is acknowledged later was sent in time all the same.
ACKNOWLEDGED_WITHIN: Final = 2.0
# Seconds between two counts of the sign-ups that wait.
COUNTED_EVERY: Final = 5.0
# Seconds between two looks whether a minute of traffic is over.
ROLLED_UP_EVERY: Final = 20.0
# Seconds between two looks for sign-ups whose ticket has expired, and how many one transaction erases. After a full
# transaction the next look follows at once, so a relay erases more than an installation takes in a second.
ERASED_EVERY: Final = 60.0
ERASED_AT_ONCE: Final = 2000
# What is left of RELAY_RATE while a second's worth of it lies unread.
SHARE_WHEN_BEHIND: Final = 0.1


class Command(BaseCommand):
    help = (
        "Publishes the events of sign-ups that still wait for an answer, with growing pauses, until every service "
        "has answered or the sign-up is stalled. Any number of relays may run: each due sign-up is claimed by one. "
        "Ends on SIGTERM."
    )
    requires_system_checks = (START_CHECKS,)

    def handle(self, **options: Any) -> None:
        with running_role("relay") as role:
            if not role.wait_for("its database", partial(check_database, "authsvc")):
                return
            relay = OutboxRelay()
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
                # A second's worth at most, then a pause: RELAY_RATE events a second.
                role.stop.wait(PAUSE)
            attendance.close()
            follower.close()
            relay.close()


class OutboxRelay:
    """Publishes what is due, RELAY_RATE events a second, and a tenth of it while somebody is merely behind: to ask
    again what lies unread would bury who is to read it (docs/adr/0002)."""

    def __init__(self) -> None:
        self._producer = EventProducer()
        self._lag = LagReader()
        self._sampler = LagSampler()
        self._count_from = 0.0
        self._roll_up = RollUp()
        self._roll_up_from = 0.0
        self._erase_from = 0.0

    def relay_once(self) -> int:
        """Claims and publishes what is due now, a second's worth at most; how many events were acknowledged.

        What fails stays claimed and is due again after its pause, so nothing is lost by giving up here.
        """
        try:
            return self._publish(claim_due(limit=self._rate()))
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("the relay can't work now and tries again: %s", error)
            return 0
        finally:
            close_old_connections()

    def count_incomplete(self) -> None:
        """Counts for /metrics what is waited for, every COUNTED_EVERY seconds; nothing is shown while it can't."""
        if time.monotonic() < self._count_from:
            return
        self._count_from = time.monotonic() + COUNTED_EVERY
        counts = dict.fromkeys(("waiting", "due", "stalled"), math.nan)
        try:
            counts |= count_incomplete()
        except Exception as error:
            if not is_transient(error):
                raise
        finally:
            for state, count in counts.items():
                INCOMPLETE.labels(state).set(count)
            close_old_connections()

    def roll_up_traffic(self) -> None:
        """Keeps the last minute's figures for the traffic page, once a minute; where it can't, the next time does."""
        if time.monotonic() < self._roll_up_from:
            return
        self._roll_up_from = time.monotonic() + ROLLED_UP_EVERY
        try:
            self._roll_up.run()
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("traffic is not rolled up now: %s", error)
        finally:
            close_old_connections()

    def erase_expired(self) -> None:
        """Erases the hashes of sign-ups whose ticket has expired (docs/adr/0040), and deletes those that nobody has
        confirmed in time (docs/adr/0042), once a minute. After an error it tries again a second later."""
        if time.monotonic() < self._erase_from:
            return
        try:
            unconfirmed = delete_expired(ERASED_AT_ONCE)
            UNCONFIRMED.labels("expired").inc(unconfirmed)
            if max(erase_expired(ERASED_AT_ONCE), unconfirmed) < ERASED_AT_ONCE:
                self._erase_from = time.monotonic() + ERASED_EVERY
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("expired sign-ups are not erased now: %s", error)
        finally:
            close_old_connections()

    def close(self) -> None:
        """Ends the clients."""
        self._producer.close(timeout=0)
        self._lag.close()

    def _rate(self) -> int:
        rate = live.RELAY_RATE
        try:
            is_behind = self._unread() >= rate
        except TransientError as error:
            # It need not be known: after a restart Kafka may take messages a minute before it tells of groups.
            logger.warning("the relay goes slowly: %s", error)
            is_behind = True
        return max(1, int(rate * SHARE_WHEN_BEHIND)) if is_behind else rate

    def _unread(self) -> int:
        unread = {AUTH: self._lag.lag(NEW_USER_ANSWERED, AUTH)}
        unread |= {participant: self._lag.lag(NEW_USER_REQUESTED, participant) for participant in participants()}
        self._sampler.sample(unread)
        return max(unread.values())

    def _publish(self, events: Sequence[DueEvent]) -> int:
        of_message = {_message(event): event.signup_id for event in events}
        try:
            self._producer.send_all(list(of_message), timeout=ACKNOWLEDGED_WITHIN)
        except DeliveryError as error:
            # Kafka away is no try: otherwise an outage would use them all up.
            give_back_tries([of_message.pop(message) for message in error.failed])
            logger.warning("%s", error)
        sent = list(of_message.values())
        RELAYED.inc(len(sent))
        log_traces(logger, "sign-ups asked for again: %d", sent)
        return len(sent)


def _message(event: DueEvent) -> Outgoing:
    return new_user_requested(event.record, signup_id=event.signup_id, attempt=event.attempt, services=event.services)
