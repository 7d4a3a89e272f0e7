"""`manage.py relay_signups`: publishes again what is due (DESIGN, invariant 2)."""

import logging
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import close_old_connections

from authsvc.events import new_user_requested
from authsvc.services import claim_due
from eventbus.errors import is_transient
from eventbus.producer import EventProducer
from eventbus.roles import check_database, running_role

logger = logging.getLogger(__name__)

PAUSE: Final = 1.0
ACKNOWLEDGED_WITHIN: Final = 10.0


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
            producer.close(timeout=3)


def relay_once(producer: EventProducer) -> int:
    """Claims and publishes what is due now, RELAY_RATE events at most; how many were acknowledged.

    What fails stays claimed and is due again after its pause, so nothing is lost by giving up here.
    """
    try:
        events = claim_due(limit=settings.RELAY_RATE)
        producer.send_all(
            [
                new_user_requested(
                    event.record, signup_id=event.signup_id, attempt=event.attempt, services=event.services
                )
                for event in events
            ],
            timeout=ACKNOWLEDGED_WITHIN,
        )
    except Exception as error:
        if not is_transient(error):
            raise
        logger.warning("the relay can't work now and tries again: %s", error)
        return 0
    finally:
        close_old_connections()
    if events:
        logger.info("published %d events again", len(events))
    return len(events)
