"""`manage.py relay_signups`: publishes again what is due (DESIGN, invariant 2)."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import close_old_connections

from authsvc.events import new_user_requested
from authsvc.services import DueEvent, claim_due, give_back_tries
from eventbus.errors import DeliveryError, is_transient
from eventbus.messages import Outgoing
from eventbus.producer import EventProducer
from eventbus.roles import check_database, running_role

logger = logging.getLogger(__name__)

PAUSE: Final = 1.0
# Less than a role has to stop in. What is acknowledged later was sent in time all the same.
ACKNOWLEDGED_WITHIN: Final = 2.0


class Command(BaseCommand):
    help = (
        "Publishes the events of sign-ups that still wait for an answer, with growing pauses, until every service "
        "has answered or the sign-up is stalled. Any number of relays may run: each due sign-up is claimed by one. "
        "Ends on SIGTERM."
    )

    def handle(self, **options: Any) -> None:
        with running_role("relay") as role:
            if not role.wait_for("its database", partial(check_database, "authsvc")):
                return
            producer = EventProducer()
            role.ready()
            while not role.stop.is_set():
                role.beat()
                relay_once(producer)
                # A second's worth at most, then a pause: RELAY_RATE events a second.
                role.stop.wait(PAUSE)
            producer.close(timeout=0)


def relay_once(producer: EventProducer) -> int:
    """Claims and publishes what is due now, RELAY_RATE events at most; how many were acknowledged.

    What fails stays claimed and is due again after its pause, so nothing is lost by giving up here.
    """
    try:
        return _publish(claim_due(limit=settings.RELAY_RATE), producer)
    except Exception as error:
        if not is_transient(error):
            raise
        logger.warning("the relay can't work now and tries again: %s", error)
        return 0
    finally:
        close_old_connections()


def _publish(events: Sequence[DueEvent], producer: EventProducer) -> int:
    of_message = {_message(event): event for event in events}
    try:
        producer.send_all(list(of_message), timeout=ACKNOWLEDGED_WITHIN)
    except DeliveryError as error:
        # Kafka away is no try: otherwise an outage would use them all up.
        give_back_tries([of_message[message].signup_id for message in error.failed])
        logger.warning("%s", error)
        return len(events) - len(error.failed)
    if events:
        logger.info("published %d events again", len(events))
    return len(events)


def _message(event: DueEvent) -> Outgoing:
    return new_user_requested(event.record, signup_id=event.signup_id, attempt=event.attempt, services=event.services)
