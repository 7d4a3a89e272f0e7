"""The registry of running processes: each writes its status to Redis every few seconds, under a key that expires
(docs/adr/0029).

While Redis is unavailable, only the page that lists the instances suffers. A process logs the outage once and keeps
trying.
"""

import contextlib
import logging
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Self, cast

import msgspec
import redis
from django.conf import settings

from runtime.processes.health import Heartbeat
from runtime.redis_clients import redis_client

logger = logging.getLogger(__name__)

# Heartbeat interval in seconds, and the silence after which a process is presumed dead.
TOLD_EVERY: Final = 3.0
GONE_AFTER: Final = 10.0
# Seconds that a process stays on the list after it died without signing off.
REMEMBERED: Final = 3600
# Timeout of Redis in seconds. A stopping process waits for it once.
ANSWERS_WITHIN: Final = 1.0
# The sorted set of all process ids by the time of their last heartbeat.
INDEX: Final = "instances"

# Prefix of a consumer's role; the service's name follows.
CONSUMER: Final = "consumer of "


class Standing(StrEnum):
    STARTING = "starting"
    IN_ROTATION = "in rotation"
    STUCK = "stuck"
    DRAINING = "draining"
    GONE = "gone"


class ReportedStatus(msgspec.Struct, frozen=True):
    """A process's status as it reports it. `beat_age`: seconds since its heartbeat (runtime.processes.health)."""

    id: str
    role: str
    host: str
    pid: int
    version: str
    since: datetime
    address: str
    standing: Standing
    beat_age: float


class RunningInstance(msgspec.Struct, frozen=True):
    """A process's last report and its `age` in seconds, by the clock of Redis."""

    status: ReportedStatus
    age: float

    @property
    def standing(self) -> Standing:
        return Standing.GONE if self.age > GONE_AFTER else self.status.standing

    @property
    def beat_age(self) -> float:
        """Seconds since the last heartbeat of its work."""
        return self.age + self.status.beat_age


class InstanceReport:
    """Report this process's status, on a background thread, for the duration of the context.

    An orderly exit removes the entry; a process that dies is shown as gone."""

    def __init__(self, role: str, heartbeat: Heartbeat, *, address: str = "") -> None:
        self.address = address
        self._role = role
        self._heartbeat = heartbeat
        self._id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._since = datetime.now(UTC)
        self._is_draining = False
        self._is_away = False
        self._redis = redis_client(ANSWERS_WITHIN)
        # A signal handler may call put() at any time, but not an Event's set(), which may deadlock.
        self._wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="instance-report", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wishes.put("end")
        self._thread.join(2 * ANSWERS_WITHIN)

    def show_draining(self) -> None:
        """Show this process as draining from now on."""
        self._wishes.put("drain")

    def _run(self) -> None:
        while True:
            self._try(self._tell)
            try:
                wish = self._wishes.get(timeout=TOLD_EVERY)
            except queue.Empty:
                continue
            if wish == "end":
                self._try(self._forget)
                self._redis.close()
                return
            self._is_draining = True

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (redis.RedisError, OSError) as error:
            if not self._is_away:
                logger.warning("Redis is unavailable, so the list of instances does not show this process: %s", error)
            self._is_away = True
        else:
            self._is_away = False

    def _tell(self) -> None:
        status = ReportedStatus(
            id=self._id,
            role=self._role,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=settings.VERSION,
            since=self._since,
            address=self.address,
            standing=self._standing,
            beat_age=self._heartbeat.age,
        )
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(_key(self._id), msgspec.json.encode(status), ex=REMEMBERED)
            pipeline.zadd(INDEX, {self._id: time.time()})
            pipeline.expire(INDEX, REMEMBERED)
            pipeline.execute()

    def _forget(self) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.delete(_key(self._id))
            pipeline.zrem(INDEX, self._id)
            pipeline.execute()

    @property
    def _standing(self) -> Standing:
        if self._is_draining:
            return Standing.DRAINING
        if not self._heartbeat.is_live:
            return Standing.STUCK
        return Standing.IN_ROTATION if self._heartbeat.is_ready else Standing.STARTING


def read_instances() -> list[RunningInstance]:
    """Return every running process, and those that died without signing off within the last hour, by role and age.

    Raises redis.RedisError while Redis is unavailable.
    """
    with contextlib.closing(redis_client(ANSWERS_WITHIN)) as client:
        # Members of the index do not expire individually. The keys of those removed here have expired.
        client.zremrangebyscore(INDEX, 0, time.time() - REMEMBERED)
        ids = cast("list[bytes]", client.zrange(INDEX, 0, -1))
        keys = [_key(instance_id.decode()) for instance_id in ids]
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(key)
                pipeline.pttl(key)
            answers = pipeline.execute()
    decode = msgspec.json.Decoder(ReportedStatus).decode
    seen = [
        # The key's remaining time to live gives its age without comparing the clocks of two hosts.
        RunningInstance(decode(text), max(0.0, REMEMBERED - left / 1000))
        for text, left in zip(answers[::2], answers[1::2], strict=True)
        if text is not None
    ]
    return sorted(seen, key=lambda each: (each.status.role, each.status.since))


def _key(instance_id: str) -> str:
    return f"instance:{instance_id}"
