"""How many sign-ups are taken in a minute: from one address, for one user ID, and in all (docs/adr/0027); and how many
logins and requests for a new password, from one address (docs/adr/0033), and failed logins to one account from one
address (docs/adr/0045); and how many mails that strangers may ask for go to one mailbox in an hour (docs/adr/0042)."""

import logging
import time
from functools import cache
from math import ceil
from typing import Any, Final, Literal, cast
from uuid import UUID

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute, WindowStats
from limits.aio.storage import RedisStorage as AsyncRedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter as AsyncSlidingWindows
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from authsvc.metrics import LIMITED, UNLIMITED
from livesettings.redis_clients import redis_client, redis_pool
from livesettings.values import live
from runtime.addresses import network_of

logger = logging.getLogger(__name__)

# Repetitions of one sign-up that are taken in a minute although a limit is reached.
REPETITIONS: Final = RateLimitItemPerMinute(6)
CONNECTIONS: Final = 16
# Seconds that Redis may take, and for which it is not asked again after it did not answer.
REDIS_TIMEOUT: Final = 0.5
AWAY_PAUSE: Final = 1.0
KEY_PREFIX: Final = "rate"

Attempt = Literal["login", "password"]
Mail = Literal["confirm", "reset"]
Limit = Literal["address", "user_id", "total", "failed_login"] | Attempt | Mail
# Minutes in which the failed logins to one account from one address are counted.
FAILED_LOGINS_IN: Final = 15


class TooManyError(Exception):
    """This limit is reached; in `retry_after` seconds another may be taken."""

    def __init__(self, limit: Limit, retry_after: int) -> None:
        super().__init__(limit)
        self.limit = limit
        self.retry_after = retry_after


def _reached(limit: Limit, window: WindowStats) -> TooManyError:
    LIMITED.labels(limit).inc()
    return TooManyError(limit, max(1, ceil(window.reset_time - time.time())))


class _OpenWithoutRedis:
    """Where Redis is away everybody is let through, and it is not asked again for a while."""

    _what: str
    _ask_again_at = 0.0

    @property
    def _is_away(self) -> bool:
        return time.monotonic() < self._ask_again_at

    def _let_through(self, error: Exception) -> None:
        UNLIMITED.inc()
        self._ask_again_at = time.monotonic() + AWAY_PAUSE
        logger.warning("Redis is away, so %s are let through uncounted: %s", self._what, error)


class RateLimits(_OpenWithoutRedis):
    """Counts sign-ups in Redis, in sliding windows, over all processes.

    For one event loop. Each limit that is set costs one round trip; one that is reached spares those after it.
    """

    _what = "sign-ups"

    def __init__(self) -> None:
        self._pool = redis_pool(REDIS_TIMEOUT, connections=CONNECTIONS)
        # The pool has the address, which may be a Unix socket's.
        storage = AsyncRedisStorage(
            "async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, connection_pool=cast("Any", self._pool)
        )
        self._windows = AsyncSlidingWindows(storage)

    async def close(self) -> None:
        """Ends the connections."""
        await self._pool.aclose()

    async def count(self, *, address: str | None, user_id_key: str) -> None:
        """Counts one sign-up. Raises TooManyError where a limit is reached; those after it don't count it, so that
        who floods from one address takes nothing of what all have together."""
        limits: tuple[tuple[Limit, int, str | None], ...] = (
            ("address", live.RATE_LIMIT_ADDRESS, address and network_of(address)),
            ("user_id", live.RATE_LIMIT_USER_ID, user_id_key),
            ("total", live.RATE_LIMIT_TOTAL, "all"),
        )
        for limit, amount, counted in limits:
            if amount and counted:
                await self._hit(limit, RateLimitItemPerMinute(amount), counted)

    async def count_repetition(self, signup_id: UUID) -> bool:
        """Whether a sign-up that has begun may be posted once more, although a limit is reached."""
        try:
            return await self._windows.hit(REPETITIONS, "repetition", str(signup_id))
        except (RedisError, OSError) as error:
            self._let_through(error)
            return True

    async def _hit(self, limit: Limit, item: RateLimitItemPerMinute, counted: str) -> None:
        if self._is_away:
            UNLIMITED.inc()
            return
        try:
            if await self._windows.hit(item, limit, counted):
                return
            window = await self._windows.get_window_stats(item, limit, counted)
        except (RedisError, OSError) as error:
            self._let_through(error)
            return
        raise _reached(limit, window)


class AttemptLimits(_OpenWithoutRedis):
    """The same for logins, requests for a new password, and confirmation mails. For threads."""

    _what = "logins and new passwords"

    def __init__(self) -> None:
        pool = redis_client(REDIS_TIMEOUT).connection_pool
        storage = RedisStorage("redis://", key_prefix=KEY_PREFIX, connection_pool=pool)
        self._windows = SlidingWindowCounterRateLimiter(storage)

    def count(self, attempt: Attempt, *, address: str) -> None:
        """Counts one attempt. Raises TooManyError where the limit is reached."""
        amount = live.RATE_LIMIT_LOGIN if attempt == "login" else live.RATE_LIMIT_PASSWORD
        if amount and address:
            self._hit(attempt, RateLimitItemPerMinute(amount), network_of(address))

    def count_login(self, account: str, *, address: str) -> None:
        """Counts a password that is tried at an account from an address, before it is looked at: of many that come at
        once, none is overlooked. Raises TooManyError where so many have failed; from elsewhere the account is open."""
        if live.RATE_LIMIT_FAILED_LOGIN and address:
            self._hit("failed_login", _failed_logins(), account, network_of(address))

    def forget_logins(self, account: str, *, address: str) -> None:
        """The password was right: what came before it was its owner."""
        if not (live.RATE_LIMIT_FAILED_LOGIN and address) or self._is_away:
            return
        try:
            self._windows.clear(_failed_logins(), "failed_login", account, network_of(address))
        except (RedisError, OSError) as error:
            self._let_through(error)

    def count_mail(self, kind: Mail, *, email: str) -> None:
        """Counts a mail of this kind. Raises TooManyError where the mailbox has had enough of them in the last hour."""
        # What follows a plus sign in front of the @ leads to the same mailbox at most providers.
        local, _at, domain = email.rpartition("@")
        if live.RATE_LIMIT_CONFIRM:
            mailbox = f"{local.partition('+')[0]}@{domain}"
            self._hit(kind, RateLimitItemPerHour(live.RATE_LIMIT_CONFIRM), mailbox)

    def _hit(self, limit: Limit, item: RateLimitItem, *counted: str) -> None:
        if self._is_away:
            UNLIMITED.inc()
            return
        try:
            if self._windows.hit(item, limit, *counted):
                return
            window = self._windows.get_window_stats(item, limit, *counted)
        except (RedisError, OSError) as error:
            self._let_through(error)
            return
        raise _reached(limit, window)


def _failed_logins() -> RateLimitItem:
    return RateLimitItemPerMinute(live.RATE_LIMIT_FAILED_LOGIN, FAILED_LOGINS_IN)


@cache
def attempt_limits() -> AttemptLimits:
    """Those of this process."""
    return AttemptLimits()
