"""Rate limits for sign-ups (docs/adr/0027), logins and password reset requests (0033), failed logins (0045), and for
password attempts at confirmation links and mails that anyone can trigger (0042)."""

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

from authsvc.metrics import LIMITED, UNLIMITED
from livesettings.values import live
from runtime.addresses import network_of
from runtime.redis_clients import ANSWERS_WITHIN, CircuitBreaker, redis_client, redis_pool

# Repetitions of one sign-up that are accepted per minute even if a limit is reached.
REPETITIONS: Final = RateLimitItemPerMinute(6)
CONNECTIONS: Final = 16
KEY_PREFIX: Final = "rate"

Attempt = Literal["login", "password"]
Mail = Literal["confirm", "reset", "address"]
Limit = Literal["address", "user_id", "total", "failed_login", "failed_confirm"] | Attempt | Mail
# Window in minutes for failed logins to one account from one address, and for password attempts at one link.
FAILED_LOGINS_IN: Final = 15
# Limit of mails to one mailbox for all network addresses, as a multiple of the limit for one address: an attacker at
# one address can't use up the owner's share, and attackers at many addresses can't flood the mailbox.
MAILS_IN_ALL: Final = 4


class TooManyError(Exception):
    """This limit is reached; another attempt is possible in `retry_after` seconds."""

    def __init__(self, limit: Limit, retry_after: int) -> None:
        super().__init__(limit)
        self.limit = limit
        self.retry_after = retry_after


def _reached(limit: Limit, window: WindowStats) -> TooManyError:
    LIMITED.labels(limit).inc()
    return TooManyError(limit, max(1, ceil(window.reset_time - time.time())))


class RateLimits:
    """Counts sign-ups of all processes in Redis, in sliding windows. While Redis is unavailable, all are let through.

    For use in one event loop. Each active limit costs one round trip; once one is reached, the next aren't checked.
    """

    def __init__(self) -> None:
        self._breaker = CircuitBreaker("sign-ups are let through uncounted")
        self._pool = redis_pool(ANSWERS_WITHIN, connections=CONNECTIONS)
        # The pool determines the real server, which may be a Unix socket.
        storage = AsyncRedisStorage(
            "async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, connection_pool=cast("Any", self._pool)
        )
        self._windows = AsyncSlidingWindows(storage)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def count(self, *, address: str | None, user_id_key: str) -> None:
        """Count one sign-up. Raise TooManyError if a limit is reached; later limits then don't count it, so that a
        flood from one address doesn't use up the total that everyone shares."""
        limits: tuple[tuple[Limit, int, str | None], ...] = (
            ("address", live.RATE_LIMIT_ADDRESS, address and network_of(address)),
            ("user_id", live.RATE_LIMIT_USER_ID, user_id_key),
            ("total", live.RATE_LIMIT_TOTAL, "all"),
        )
        for limit, amount, counted in limits:
            if amount and counted:
                await self._hit(limit, RateLimitItemPerMinute(amount), counted)

    async def count_confirmation(self, signup_id: UUID) -> None:
        """Count a password attempt at this sign-up's link, from any address, before the password is checked. Raise
        TooManyError after as many attempts as the limit of failed logins allows."""
        if live.RATE_LIMIT_FAILED_LOGIN:
            await self._hit("failed_confirm", _failed_logins(), str(signup_id))

    async def count_repetition(self, signup_id: UUID) -> bool:
        """Whether an existing sign-up may be posted once more although a limit is reached. Counts the repetition."""
        return await self._full_window(REPETITIONS, "repetition", str(signup_id)) is None

    async def _hit(self, limit: Limit, item: RateLimitItem, *counted: str) -> None:
        if (window := await self._full_window(item, limit, *counted)) is not None:
            raise _reached(limit, window)

    async def _full_window(self, item: RateLimitItem, *counted: str) -> WindowStats | None:
        """Count one hit. Return the window if it is full, None otherwise or while Redis is unavailable."""
        if not self._breaker.is_open:
            with self._breaker.noting():
                is_counted = await self._windows.hit(item, *counted)
                return None if is_counted else await self._windows.get_window_stats(item, *counted)
        UNLIMITED.inc()
        return None


class AttemptLimits:
    """The same for logins, password reset requests, and mails that anyone can trigger. For use in threads."""

    def __init__(self) -> None:
        self._breaker = CircuitBreaker("logins and new passwords are let through uncounted")
        pool = redis_client(ANSWERS_WITHIN).connection_pool
        storage = RedisStorage("redis://", key_prefix=KEY_PREFIX, connection_pool=pool)
        self._windows = SlidingWindowCounterRateLimiter(storage)

    def count(self, attempt: Attempt, *, address: str) -> None:
        """Count one attempt. Raise TooManyError if the limit is reached."""
        amount = live.RATE_LIMIT_LOGIN if attempt == "login" else live.RATE_LIMIT_PASSWORD
        if amount and address:
            self._hit(attempt, RateLimitItemPerMinute(amount), network_of(address))

    def count_login(self, account: str, *, address: str) -> None:
        """Count a password attempt at an account from an address before the password is checked, so that concurrent
        attempts are all counted. Raise TooManyError after too many failures; other addresses are not affected."""
        if live.RATE_LIMIT_FAILED_LOGIN and address:
            self._hit("failed_login", _failed_logins(), account, network_of(address))

    def forget_logins(self, account: str, *, address: str) -> None:
        """Reset the count after a correct password: the earlier failures were the owner's."""
        if live.RATE_LIMIT_FAILED_LOGIN and address and not self._breaker.is_open:
            with self._breaker.noting():
                self._windows.clear(_failed_logins(), "failed_login", account, network_of(address))

    def count_mail(self, kind: Mail, *, email: str, address: str | None) -> None:
        """Count a mail of this kind that was requested from this network address. Raise TooManyError if the mailbox has
        reached its hourly limit, for this address or in total."""
        amount = live.RATE_LIMIT_CONFIRM
        if not amount:
            return
        # Most providers deliver name+tag@domain to the mailbox of name@domain.
        local, _at, domain = email.rpartition("@")
        mailbox = f"{local.partition('+')[0]}@{domain}"
        self._hit(kind, RateLimitItemPerHour(amount), mailbox, network_of(address) if address else "unknown")
        self._hit(kind, RateLimitItemPerHour(MAILS_IN_ALL * amount), mailbox)

    def _hit(self, limit: Limit, item: RateLimitItem, *counted: str) -> None:
        if (window := self._full_window(item, limit, *counted)) is not None:
            raise _reached(limit, window)

    def _full_window(self, item: RateLimitItem, *counted: str) -> WindowStats | None:
        """Count one hit. Return the window if it is full, None otherwise or while Redis is unavailable."""
        if not self._breaker.is_open:
            with self._breaker.noting():
                is_counted = self._windows.hit(item, *counted)
                return None if is_counted else self._windows.get_window_stats(item, *counted)
        UNLIMITED.inc()
        return None


def _failed_logins() -> RateLimitItem:
    return RateLimitItemPerMinute(live.RATE_LIMIT_FAILED_LOGIN, FAILED_LOGINS_IN)


@cache
def attempt_limits() -> AttemptLimits:
    """Return this process's limits."""
    return AttemptLimits()
