"""How every process comes to use what an administrator has set, within LOOK seconds (docs/adr/0026).

The overrides are a row in auth's database, and a copy of it in Redis, which is all that the other services see. Every
process reads the copy twice a second; those of auth's roles read the row as well and put the copy right, whatever
became of it. Where neither can be read, what was known last holds.
"""

import logging
import threading
from typing import Any, Final, cast

import msgspec
from django.db import Error, close_old_connections
from psycopg_pool import PoolTimeout
from redis import RedisError

from livesettings.redis_clients import redis_client
from livesettings.values import checked, take

logger = logging.getLogger(__name__)

KEY: Final = "live-settings"
# Seconds between two looks. A change must arrive within 1 s.
LOOK: Final = 0.5
# Seconds that Redis may take; the next look is late by as much.
REDIS_TIMEOUT: Final = 1.0

# KEYS: the copy. ARGV: what it was when the row had not been read yet, and what it is to be. Two keepers that read the
# row before and after a change can't put the older one over the newer: it is no longer what the slower one saw.
_REPLACE: Final = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
"""


# A look that read the row before a change must not take it over after one that read it later.
_one_at_a_time: Final = threading.Lock()


class Follower:
    """Keeps the values of this process up to date. A `keeper` reads the row, which is for auth's roles alone, and keeps
    the copy in Redis right."""

    def __init__(self, *, keeper: bool) -> None:
        self._keeper = keeper
        self._redis = redis_client(REDIS_TIMEOUT)
        self._replace = self._redis.register_script(_REPLACE)
        self._away: dict[str, bool] = {}
        self._has_looked, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-settings", daemon=True)

    def start(self) -> None:
        """Follows from now on. What is set already holds when this returns, if it can be read."""
        self._thread.start()
        self._has_looked.wait(2 * REDIS_TIMEOUT)

    def close(self) -> None:
        """Ends the following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(REDIS_TIMEOUT)
        self._redis.close()

    def look(self) -> bool:
        """Takes over what is set now. False: Redis is away, so others do not know of it yet."""
        with _one_at_a_time:
            copy, has_redis = self._read_copy()
            row = self._read_row() if self._keeper else None
            document = copy if row is None else row
            if document is not None:
                self._take(document)
            return has_redis and (row is None or row == copy or self._write_copy(copy, row))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:
                logger.exception("the live settings can't be followed; trying again")
            finally:
                close_old_connections()
            self._has_looked.set()
            self._stop.wait(LOOK)

    def _read_copy(self) -> tuple[bytes | None, bool]:
        try:
            copy = cast("bytes | None", self._redis.get(KEY))  # nothing is decoded here
        except (RedisError, OSError) as error:
            self._note("Redis", error)
            return None, False
        self._note("Redis", None)
        return copy, True

    def _write_copy(self, seen: bytes | None, row: bytes) -> bool:
        try:
            self._replace(keys=[KEY], args=[seen or b"", row])
        except (RedisError, OSError) as error:
            self._note("Redis", error)
            return False
        return True

    def _read_row(self) -> bytes | None:
        from livesettings.models import Overrides  # participants have no such table to ask for

        try:
            row = msgspec.json.encode(Overrides.read(), order="deterministic")
        except (Error, PoolTimeout) as error:
            self._note("the database", error)
            return None
        self._note("the database", None)
        return row

    def _take(self, document: bytes) -> None:
        try:
            take(checked(msgspec.json.decode(document, type=dict[str, Any])))
        except msgspec.MsgspecError as error:
            if not self._away.get(KEY):
                logger.warning("the live settings stay as they are: %s in %.500r", error, document)
            self._away[KEY] = True
        else:
            self._away[KEY] = False

    def _note(self, part: str, error: Exception | None) -> None:
        """Says once that a part is away, and once that it is back."""
        if error is not None and not self._away.get(part):
            logger.warning("%s is away, so the live settings stay as they are: %s", part, " ".join(str(error).split()))
        elif error is None and self._away.get(part):
            logger.info("%s is back: the live settings are followed", part)
        self._away[part] = error is not None


def look_once() -> bool:
    """One look of a keeper: after a change, and for a command that ends. False: Redis is away."""
    follower = Follower(keeper=True)
    try:
        return follower.look()
    finally:
        follower.close()
