"""Which services that every sign-up must reach are run by nobody: their lights would stay orange.

A process of this product registers in Redis (runtime.processes.instances). A participant that is written in another
language does not, but it is a member of its consumer group, which bears its name. The embedded broker knows no members.
"""

import logging
import threading
import time
from collections.abc import Iterable
from typing import Final

import redis
from confluent_kafka import KafkaException
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from eventbus.clients import prefixed
from eventbus.inspection.membership import read_memberships
from runtime.processes.instances import CONSUMER, Standing, read_instances

logger = logging.getLogger(__name__)

# Seconds between two looks, that a service may be away before that is told (a restart takes less), and until it is told
# again.
LOOK: Final = 5.0
GRACE: Final = 20.0
TOLD_AGAIN_AFTER: Final = 3600.0
# Seconds that Kafka may take to answer. The looks have a thread of their own, for which nobody waits.
ANSWERS_WITHIN: Final = 2.0


class Attendance:
    """Looks again and again, from a thread of its own, and remembers which services were away for `grace` seconds.

    What nobody can tell now, with Redis or Kafka away, stays as it was.
    """

    def __init__(self, *, look: float = LOOK, grace: float = GRACE) -> None:
        self._look, self._grace = look, grace
        self._away_since: dict[str, float] = {}
        self._told_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def absent(self) -> list[str]:
        """The services that nobody has run for a while, in the order of their lights. Takes no time."""
        now = time.monotonic()
        since = dict(self._away_since)
        return [each for each in settings.SIGNUP_SERVICES if each in since and now >= since[each] + self._grace]

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="attendance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the looks, without waiting for one that hangs."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:
                logger.exception("nobody can tell now which services run")
            self._stop.wait(self._look)

    def look(self) -> None:
        """Looks once, and tells in the log what has changed."""
        away = self._away()
        if away is None:
            return
        now = time.monotonic()
        for service in [each for each in self._away_since if each not in away]:
            del self._away_since[service]
            if self._told_at.pop(service, None) is not None:
                logger.info("%s runs now", service)
        for service in away:
            self._away_since.setdefault(service, now)
        for service in self.absent:
            if service not in self._told_at or now >= self._told_at[service] + TOLD_AGAIN_AFTER:
                self._told_at[service] = now
                logger.warning("%s", warning_of(service))

    def _away(self) -> set[str] | None:
        """The services that are not running now; None where nobody can tell."""
        services = set(settings.SIGNUP_SERVICES)
        try:
            seen = read_instances()
        except (redis.RedisError, OSError):
            is_told, running = False, set()
        else:
            is_told, running = True, {each.told.role for each in seen if each.standing is not Standing.GONE}
        unseen = {service for service in services if f"{CONSUMER}{service}" not in running}
        if not unseen or settings.KAFKA_EMBEDDED:
            return unseen if is_told else None
        return self._without_members(unseen)

    def _without_members(self, services: Iterable[str]) -> set[str] | None:
        try:
            return {service for service in services if not _has_members(prefixed(service))}
        except (KafkaException, ImproperlyConfigured):
            return None


def _has_members(group: str) -> bool:
    found = read_memberships(group, timeout=ANSWERS_WITHIN).get(group)
    if found is not None and found.problem:
        raise KafkaException(found.problem)
    return found is not None and bool(found.members)


def warning_of(service: str) -> str:
    """What is wrong and what to do, in one line."""
    start = f"start `manage.py consume_events {service}`" if service in settings.EVENT_CONSUMERS else "start it"
    return (
        f"nobody runs the service {service}, which SIGNUP_SERVICES names: its lights stay orange. "
        f"Please {start}, or take it out of SIGNUP_SERVICES."
    )


# The one of this process. It looks once start() was called, which the web process and the relay do.
attendance: Final = Attendance()
