"""The rate limits: of sign-ups (docs/adr/0027), of logins and requests for a new password (0033), of failed logins
(0045), and of passwords tried at a confirmation link and mails that strangers can ask for (0042)."""

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
from runtime.redis_clients import ANSWERS_WITHIN, REDIS_ERRORS, CircuitBreaker, redis_client, redis_pool

# Repetitions of one sign-up that are taken in a minute although a limit is reached.
REPETITIONS: Final = RateLimitItemPerMinute(6)
CONNECTIONS: Final = 16
KEY_PREFIX: Final = "rate"

Attempt = Literal["login", "password"]
Mail = Literal["confirm", "reset"]
Limit = Literal["address", "user_id", "total", "failed_login", "failed_confirm"] | Attempt | Mail
# Minutes in which the failed logins to one account from one address are counted, and the wrong passwords at one link.
FAILED_LOGINS_IN: Final = 15
# The mails to one mailbox in all, as a multiple of those that one address may ask for: a stranger at one address cannot
# use up what the mailbox's owner may ask for, and strangers at many addresses cannot fill the mailbox.
MAILS_IN_ALL: Final = 4


class TooManyError(Exception):
    """This limit is reached; in `retry_after` seconds another may be taken."""

    def __init__(self, limit: Limit, retry_after: int) -> None:
        super().__init__(limit)
        self.limit = limit
        self.retry_after = retry_after


def _reached(limit: Limit, window: WindowStats) -> TooManyError:
    LIMITED.labels(limit).inc()
    return TooManyError(limit, max(1, ceil(window.reset_time - time.time())))


class RateLimits:
    """Counts sign-ups in Redis, in sliding windows, over all processes. While Redis is away, lets everybody through.

    For one event loop. Each limit that is set costs one round trip; one that is reached spares those after it.
    """

    def __init__(self) -> None:
        self._breaker = CircuitBreaker("sign-ups are let through uncounted")
        self._pool = redis_pool(ANSWERS_WITHIN, connections=CONNECTIONS)
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

    async def count_confirmation(self, signup_id: UUID) -> None:
        """Counts a password that is tried at this sign-up's link, from wherever, before it is looked at. Raises
        TooManyError where so many were tried as may fail at a login."""
        if live.RATE_LIMIT_FAILED_LOGIN:
            await self._hit("failed_confirm", _failed_logins(), str(signup_id))

    async def count_repetition(self, signup_id: UUID) -> bool:
        """Whether a sign-up that has begun may be posted once more, although a limit is reached."""
        return await self._full_window(REPETITIONS, "repetition", str(signup_id)) is None

    async def _hit(self, limit: Limit, item: RateLimitItem, *counted: str) -> None:
        if (window := await self._full_window(item, limit, *counted)) is not None:
            raise _reached(limit, window)

    async def _full_window(self, item: RateLimitItem, *counted: str) -> WindowStats | None:
        """Counts one more. The window where that is too many, and None where it is not or where Redis is away."""
        if self._breaker.is_open:
            UNLIMITED.inc()
            return None
        window = None
        try:
            if not await self._windows.hit(item, *counted):
                window = await self._windows.get_window_stats(item, *counted)
        except REDIS_ERRORS as error:
            UNLIMITED.inc()
            self._breaker.note_failure(error)
            return None
        self._breaker.note_success()
        return window


class AttemptLimits:
    """The same for logins, requests for a new password, and mails that strangers may ask for. For threads."""

    def __init__(self) -> None:
        self._breaker = CircuitBreaker("logins and new passwords are let through uncounted")
        pool = redis_client(ANSWERS_WITHIN).connection_pool
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
        if not (live.RATE_LIMIT_FAILED_LOGIN and address) or self._breaker.is_open:
            return
        try:
            self._windows.clear(_failed_logins(), "failed_login", account, network_of(address))
        except REDIS_ERRORS as error:
            self._breaker.note_failure(error)

    def count_mail(self, kind: Mail, *, email: str, address: str | None) -> None:
        """Counts a mail of this kind that somebody at this address asked for. Raises TooManyError where the mailbox has
        had enough of them in the last hour, through that address or in all."""
        amount = live.RATE_LIMIT_CONFIRM
        if not amount:
            return
        # What follows a plus sign in front of the @ leads to the same mailbox at most providers.
        local, _at, domain = email.rpartition("@")
        mailbox = f"{local.partition('+')[0]}@{domain}"
        self._hit(kind, RateLimitItemPerHour(amount), mailbox, network_of(address) if address else "unknown")
        self._hit(kind, RateLimitItemPerHour(MAILS_IN_ALL * amount), mailbox)

    def _hit(self, limit: Limit, item: RateLimitItem, *counted: str) -> None:
        if (window := self._full_window(item, limit, *counted)) is not None:
            raise _reached(limit, window)

    def _full_window(self, item: RateLimitItem, *counted: str) -> WindowStats | None:
        """Counts one more. The window where that is too many, and None where it is not or where Redis is away."""
        if self._breaker.is_open:
            UNLIMITED.inc()
            return None
        window = None
        try:
            if not self._windows.hit(item, *counted):
                window = self._windows.get_window_stats(item, *counted)
        except REDIS_ERRORS as error:
            UNLIMITED.inc()
            self._breaker.note_failure(error)
            return None
        self._breaker.note_success()
        return window


def _failed_logins() -> RateLimitItem:
    return RateLimitItemPerMinute(live.RATE_LIMIT_FAILED_LOGIN, FAILED_LOGINS_IN)


@cache
def attempt_limits() -> AttemptLimits:
    """Those of this process."""
    return AttemptLimits()
