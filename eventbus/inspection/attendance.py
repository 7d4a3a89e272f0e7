"""Detect services in SIGNUP_SERVICES that are not running anywhere: their lights would stay orange.

Processes of this product register in Redis (runtime.processes.instances). A participant written in another language
does not, but it is a member of the consumer group with its name. The embedded broker can't list group members.
"""

import logging
import threading
import time
from typing import Final

import redis
from confluent_kafka import KafkaException
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from eventbus.clients import prefixed
from eventbus.inspection.membership import read_memberships
from runtime.processes.instances import CONSUMER, Standing, read_instances

logger = logging.getLogger(__name__)

# Seconds between two checks; seconds that a service may be absent before a warning is logged (a restart takes less);
# and seconds until the warning is repeated.
CHECK_INTERVAL: Final = 5.0
GRACE: Final = 20.0
TOLD_AGAIN_AFTER: Final = 3600.0
# Timeout of Kafka in seconds. The checks run on a background thread that nothing waits for.
ANSWERS_WITHIN: Final = 2.0


class Attendance:
    """Check periodically, on a background thread, which services have been absent for `grace` seconds.

    While Redis or Kafka is unavailable, the last result stays.
    """

    def __init__(self, *, grace: float = GRACE) -> None:
        self._grace = grace
        self._away_since: dict[str, float] = {}
        self._told_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def absent(self) -> list[str]:
        """The services that have been absent for `grace` seconds, in the order of their lights. Makes no request."""
        now = time.monotonic()
        since = dict(self._away_since)
        return [each for each in settings.SIGNUP_SERVICES if each in since and now >= since[each] + self._grace]

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="attendance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop checking, without waiting for a check that hangs."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.check()
            except Exception:
                logger.exception("checking which services are running failed")
            self._stop.wait(CHECK_INTERVAL)

    def check(self) -> None:
        """Check once, and log what has changed."""
        away = self._away()
        if away is None:
            return
        now = time.monotonic()
        for service in [each for each in self._away_since if each not in away]:
            del self._away_since[service]
            if self._told_at.pop(service, None) is not None:
                logger.info("%s is running now", service)
        for service in away:
            self._away_since.setdefault(service, now)
        for service in self.absent:
            if service not in self._told_at or now >= self._told_at[service] + TOLD_AGAIN_AFTER:
                self._told_at[service] = now
                logger.warning("%s", warning_of(service))

    def _away(self) -> set[str] | None:
        """The services that are not running now; None if that is unknown."""
        services = set(settings.SIGNUP_SERVICES)
        try:
            seen = read_instances()
        except (redis.RedisError, OSError):
            is_reported, running = False, set()
        else:
            is_reported, running = True, {each.status.role for each in seen if each.standing is not Standing.GONE}
        unseen = {service for service in services if f"{CONSUMER}{service}" not in running}
        if not unseen or settings.KAFKA_EMBEDDED:
            return unseen if is_reported else None
        try:
            return {service for service in unseen if not _has_members(prefixed(service))}
        except (KafkaException, ImproperlyConfigured):
            return None


def _has_members(group: str) -> bool:
    found = read_memberships(group, timeout=ANSWERS_WITHIN).get(group)
    if found is not None and found.problem:
        raise KafkaException(found.problem)
    return found is not None and bool(found.members)


def warning_of(service: str) -> str:
    """Return one line that says what is wrong and what to do."""
    start = f"start `manage.py consume_events {service}`" if service in settings.EVENT_CONSUMERS else "start it"
    return (
        f"the service {service} in SIGNUP_SERVICES is not running anywhere: its lights stay orange. "
        f"Please {start}, or remove it from SIGNUP_SERVICES."
    )


# This process's instance. Checks begin with start(), which the web process and the relay call.
attendance: Final = Attendance()
