"""The rate limits: their counts in Redis, the counts at which they refuse, and their absence without Redis."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from math import inf
from uuid import UUID

import pytest
import redis
from limits import WindowStats

from authsvc import rate_limits
from authsvc.metrics import LIMITED, UNLIMITED
from authsvc.rate_limits import (
    CONNECTIONS,
    MAILS_IN_ALL,
    REPETITIONS,
    AttemptLimits,
    RateLimits,
    TooManyError,
    attempt_limits,
)
from runtime import redis_clients

pytestmark = pytest.mark.needs("redis")

SIGNUP = UUID(int=1)
MINA = "192.0.2.1"
JUN = "192.0.2.2"


@pytest.fixture
def counts(settings) -> Iterator[redis.Redis]:
    settings.RATE_LIMIT_ADDRESS = settings.RATE_LIMIT_USER_ID = settings.RATE_LIMIT_TOTAL = 2
    settings.RATE_LIMIT_LOGIN = settings.RATE_LIMIT_PASSWORD = settings.RATE_LIMIT_FAILED_LOGIN = 2
    settings.RATE_LIMIT_CONFIRM = 2
    with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
async def limits(counts) -> AsyncIterator[RateLimits]:
    made = RateLimits()
    yield made
    await made.close()


@pytest.fixture
def attempts(counts) -> Iterator[AttemptLimits]:
    made = AttemptLimits()
    yield made
    made._windows.storage.storage.connection_pool.disconnect()


@pytest.fixture
def silent(counts, settings, monkeypatch) -> Iterator[None]:
    """A frozen Redis: it accepts connections and answers nothing. The limits wait for it as long as in production."""
    monkeypatch.setattr(rate_limits, "ANSWERS_WITHIN", redis_clients.ANSWERS_WITHIN)
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        yield


def counted(client: redis.Redis) -> dict[str, int]:
    """The count of each window by its name: the limit, the amount, and the window's length."""
    return {key.removeprefix("rate:{LIMITER/").removesuffix("}"): int(client.get(key)) for key in client.keys("rate:*")}


def refused_by(limit: str, error: pytest.ExceptionInfo[TooManyError], *, within: int) -> bool:
    return (str(error.value), error.value.limit) == (limit, limit) and 1 <= error.value.retry_after <= within


@pytest.mark.parametrize(
    ("reset_time", "seconds"), [(1000.0, 1), (999.0, 1), (1000.1, 1), (1001.0, 1), (1001.1, 2), (1059.5, 60)]
)
def test_the_seconds_to_wait_are_rounded_up_and_at_least_one(reset_time, seconds, monkeypatch):
    monkeypatch.setattr(rate_limits.time, "time", lambda: 1000.0)
    before = LIMITED.labels("total")._value.get()
    error = rate_limits._reached("total", WindowStats(reset_time, 0))
    assert (error.limit, error.retry_after) == ("total", seconds)
    assert LIMITED.labels("total")._value.get() == before + 1


# --- Sign-ups ---------------------------------------------------------------------------------------------------


async def test_a_sign_up_counts_once_for_its_network_its_user_id_and_the_total(limits, counts):
    await limits.count(address="2001:db8::1", user_id_key="mina")
    assert counted(counts) == {
        "address/2001:db8::/64/2/1/minute": 1, "user_id/mina/2/1/minute": 1, "total/all/2/1/minute": 1
    }  # fmt: skip


async def test_without_an_address_only_the_user_id_and_the_total_count(limits, counts):
    await limits.count(address=None, user_id_key="mina")
    assert counted(counts) == {"user_id/mina/2/1/minute": 1, "total/all/2/1/minute": 1}


@pytest.mark.parametrize("limit", ["address", "user_id", "total"])
async def test_a_limit_of_zero_counts_nothing(limit, limits, counts, settings):
    setattr(settings, f"RATE_LIMIT_{limit.upper()}", 0)
    await limits.count(address=MINA, user_id_key="mina")
    assert sorted(name.partition("/")[0] for name in counted(counts)) == sorted(
        {"address", "user_id", "total"} - {limit}
    )


@pytest.mark.parametrize("limit", ["address", "user_id", "total"])
async def test_the_first_attempt_above_a_limit_is_refused_and_later_limits_do_not_count_it(
    limit, limits, counts, settings
):
    for other in {"address", "user_id", "total"} - {limit}:
        setattr(settings, f"RATE_LIMIT_{other.upper()}", 100)
    for _ in range(2):
        await limits.count(address=MINA, user_id_key="mina")
    with pytest.raises(TooManyError) as error:
        await limits.count(address=MINA, user_id_key="mina")
    assert refused_by(limit, error, within=120)
    total = next(count for name, count in counted(counts).items() if name.startswith("total/"))
    assert total == 2


async def test_passwords_at_a_link_are_counted_for_the_link(limits, counts):
    for _ in range(2):
        await limits.count_confirmation(SIGNUP)
    with pytest.raises(TooManyError) as error:
        await limits.count_confirmation(SIGNUP)
    assert refused_by("failed_confirm", error, within=1800)
    await limits.count_confirmation(UUID(int=2))
    assert counted(counts) == {
        f"failed_confirm/{SIGNUP}/2/15/minute": 2,
        f"failed_confirm/{UUID(int=2)}/2/15/minute": 1,
    }


async def test_the_wait_is_that_for_the_full_window(limits, attempts, monkeypatch):
    asked = []

    def window(item, *counted: str) -> WindowStats:
        asked.append(counted)
        return WindowStats(rate_limits.time.time() + 30, 0)

    async def window_async(item, *counted: str) -> WindowStats:
        return window(item, *counted)

    monkeypatch.setattr(limits._windows, "get_window_stats", window_async)
    monkeypatch.setattr(attempts._windows, "get_window_stats", window)
    for _ in range(2):
        await limits.count_confirmation(SIGNUP)
        attempts.count("login", address=MINA)
    with pytest.raises(TooManyError) as error:
        await limits.count_confirmation(SIGNUP)
    assert error.value.retry_after in (29, 30)
    with pytest.raises(TooManyError) as error:
        attempts.count("login", address=MINA)
    assert error.value.retry_after in (29, 30)
    assert asked == [("failed_confirm", str(SIGNUP)), ("login", MINA)]


async def test_passwords_at_a_link_are_not_counted_without_a_limit(limits, counts, settings):
    settings.RATE_LIMIT_FAILED_LOGIN = 0
    await limits.count_confirmation(SIGNUP)
    assert counted(counts) == {}


async def test_a_sign_up_may_be_repeated_only_so_often(limits, counts):
    repeated = [await limits.count_repetition(SIGNUP) for _ in range(REPETITIONS.amount + 1)]
    assert repeated == [True] * REPETITIONS.amount + [False]
    assert await limits.count_repetition(UUID(int=2))
    assert counted(counts)[f"repetition/{SIGNUP}/6/1/minute"] == 6


async def test_hundreds_of_concurrent_checks_share_few_connections(limits, counts, settings):
    settings.RATE_LIMIT_TOTAL = settings.RATE_LIMIT_ADDRESS = 1000
    settings.RATE_LIMIT_USER_ID = 0
    before = len(counts.client_list())
    await asyncio.gather(*(limits.count(address=MINA, user_id_key="mina") for _ in range(200)))
    assert 2 <= len(counts.client_list()) - before <= CONNECTIONS


async def test_sign_ups_are_not_limited_while_redis_hangs_and_only_one_waits_for_it(silent, caplog):
    limits = RateLimits()
    before = UNLIMITED._value.get()
    async with asyncio.timeout(5):
        await limits.count(address=MINA, user_id_key="mina")
    assert UNLIMITED._value.get() == before + 3
    assert await limits.count_repetition(SIGNUP)
    await limits.close()
    [said] = [record.getMessage() for record in caplog.records if "Redis is unavailable" in record.getMessage()]
    assert said.startswith("Redis is unavailable: sign-ups are let through uncounted: Timeout")


async def test_after_an_answer_redis_counts_as_recovered(limits, counts, caplog):
    caplog.set_level("INFO")
    limits._breaker.note_failure(OSError("gone"))
    limits._breaker._failed_at = -inf
    await limits.count(address=MINA, user_id_key="mina")
    assert "Redis is back" in caplog.text


# --- Logins, passwords and mails --------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", ["login", "password"])
def test_attempts_are_counted_for_the_network_by_the_limit_of_their_kind(attempts, attempt, counts, settings):
    settings.RATE_LIMIT_LOGIN, settings.RATE_LIMIT_PASSWORD = 2, 3
    allowed = {"login": 2, "password": 3}[attempt]
    for _ in range(allowed):
        attempts.count(attempt, address=MINA)
    with pytest.raises(TooManyError) as error:
        attempts.count(attempt, address=MINA)
    assert refused_by(attempt, error, within=120)
    attempts.count(attempt, address=JUN)
    assert counted(counts) == {
        f"{attempt}/{MINA}/{allowed}/1/minute": allowed, f"{attempt}/{JUN}/{allowed}/1/minute": 1
    }  # fmt: skip


def test_attempts_without_an_address_or_a_limit_are_not_counted(attempts, counts, settings):
    attempts.count("login", address="")
    attempts.count_login("mina", address="")
    settings.RATE_LIMIT_LOGIN = settings.RATE_LIMIT_FAILED_LOGIN = settings.RATE_LIMIT_CONFIRM = 0
    attempts.count("login", address=MINA)
    attempts.count_login("mina", address=MINA)
    attempts.count_mail("confirm", email="mina@example.org", address=MINA)
    assert counted(counts) == {}


def test_passwords_at_an_account_are_counted_for_account_and_network_until_one_is_right(attempts, counts):
    for _ in range(2):
        attempts.count_login("mina", address=MINA)
    with pytest.raises(TooManyError) as error:
        attempts.count_login("mina", address=MINA)
    assert refused_by("failed_login", error, within=1800)
    attempts.count_login("mina", address=JUN)
    attempts.count_login("jun", address=MINA)
    others = {f"failed_login/mina/{JUN}/2/15/minute": 1, f"failed_login/jun/{MINA}/2/15/minute": 1}
    assert counted(counts) == {f"failed_login/mina/{MINA}/2/15/minute": 2} | others
    attempts.forget_logins("mina", address=MINA)
    assert counted(counts) == others


def test_nothing_is_forgotten_without_an_address_or_a_limit(attempts, counts, settings, monkeypatch):
    attempts.count_login("mina", address=MINA)
    monkeypatch.setattr(attempts._windows, "clear", lambda *counted: pytest.fail("Redis was asked"))
    attempts.forget_logins("mina", address="")
    settings.RATE_LIMIT_FAILED_LOGIN = 0
    attempts.forget_logins("mina", address=MINA)


def test_mails_to_a_mailbox_are_counted_per_hour_for_the_network_and_in_all(attempts, counts):
    attempts.count_mail("confirm", email="mina+one+more@example.org", address=MINA)
    attempts.count_mail("confirm", email="mina@example.org", address=MINA)
    with pytest.raises(TooManyError) as error:
        attempts.count_mail("confirm", email="mina@example.org", address=MINA)
    assert refused_by("confirm", error, within=7200)
    attempts.count_mail("confirm", email="mina@example.org", address=None)
    attempts.count_mail("reset", email='"a@b+c"@example.org', address=MINA)
    assert counted(counts) == {
        f"confirm/mina@example.org/{MINA}/2/1/hour": 2,
        "confirm/mina@example.org/unknown/2/1/hour": 1,
        "confirm/mina@example.org/8/1/hour": 3,
        f'reset/"a@b@example.org/{MINA}/2/1/hour': 1,
        'reset/"a@b@example.org/8/1/hour': 1,
    }


def test_mails_from_many_networks_are_limited_in_all(attempts, counts):
    for n in range(2 * MAILS_IN_ALL):
        attempts.count_mail("reset", email="mina@example.org", address=f"198.51.100.{n}")
    with pytest.raises(TooManyError) as error:
        attempts.count_mail("reset", email="mina@example.org", address=MINA)
    assert refused_by("reset", error, within=7200)


def test_attempts_are_not_limited_while_redis_hangs_and_only_one_waits_for_it(silent, attempts, caplog):
    before = UNLIMITED._value.get()
    attempts.count_mail("reset", email="mina@example.org", address=MINA)
    assert UNLIMITED._value.get() == before + 2
    attempts.forget_logins("mina", address=MINA)
    [said] = [record.getMessage() for record in caplog.records if "Redis is unavailable" in record.getMessage()]
    assert said.startswith("Redis is unavailable: logins and new passwords are let through uncounted: Timeout")


def test_a_failure_to_forget_opens_the_breaker(silent, attempts, caplog):
    attempts.forget_logins("mina", address=MINA)
    assert attempts._breaker.is_open
    assert "let through uncounted: Timeout" in caplog.text
    # Redis is not asked again: the call would take as long as the first.
    attempts._windows.clear = lambda *counted: pytest.fail("Redis was asked")
    attempts.forget_logins("mina", address=MINA)


def test_after_an_answer_to_an_attempt_redis_counts_as_recovered(attempts, counts, caplog):
    caplog.set_level("INFO")
    attempts._breaker.note_failure(OSError("gone"))
    attempts._breaker._failed_at = -inf
    attempts.count("login", address=MINA)
    assert "Redis is back" in caplog.text


def test_a_process_has_one_set_of_limits_for_attempts():
    attempt_limits.cache_clear()
    assert isinstance(attempt_limits(), AttemptLimits)
    assert attempt_limits() is attempt_limits()
    attempt_limits.cache_clear()
