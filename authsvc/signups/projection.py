"""The projection: a copy in Redis of each sign-up's state, and the wake-up of the streams that watch it.

A copy is written whole, and only over an older version, so writes are idempotent and may arrive in any order. Wake-ups
are at-most-once and carry the states themselves. Losing either costs time but never correctness: a lost copy is read
from the database again, and every held stream rereads the database with its heartbeat. The traffic page's counts are
written by the same script, which saves a round trip to Redis.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final
from uuid import UUID

import msgspec
import redis.asyncio
from django.conf import settings

from authsvc.lights import TransactionState
from authsvc.signups.traffic_counts import COUNTS_TTL, NOTHING, Counts, present_key
from runtime.redis_clients import ANSWERS_WITHIN, CircuitBreaker, redis_client, redis_listener, redis_pool

CHANNEL: Final = "signups"
CONNECTIONS: Final = 16
# The version of a forgotten copy, which is higher than any other. Lua's numbers are exact up to here.
FORGOTTEN: Final = 2**53
# Copies that are forgotten in one round trip.
FORGOTTEN_AT_ONCE: Final = 1000
# Completes "Redis is unavailable: " in the log.
_CONSEQUENCE: Final = "states are read from the database, and traffic is not counted"

# KEYS: the hash of the current second's counts, then the copies. ARGV: TTL in seconds of the counts and of the copies,
# the channel and its message, version and state for each copy, then pairs of a field and the number to add to it.
# A copy is a hash with the version in v and the state in s.
_WRITE_AND_WAKE: Final = """
local after = 4
for i = 2, #KEYS do
  local version, state = ARGV[after + 1], ARGV[after + 2]
  local held = redis.call('HGET', KEYS[i], 'v')
  if not held or tonumber(held) < tonumber(version) then
    redis.call('HSET', KEYS[i], 'v', version, 's', state)
    redis.call('EXPIRE', KEYS[i], ARGV[2])
  end
  after = after + 2
end
for i = after + 1, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
if #KEYS > 1 then
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
"""

_encoder = msgspec.json.Encoder()
_state_decoder = msgspec.json.Decoder(TransactionState)
_wake_up_decoder = msgspec.json.Decoder(list[TransactionState])


def _key(transaction_id: UUID) -> str:
    return f"signup:{transaction_id}"


def _script_arguments(states: Sequence[TransactionState], counts: Counts) -> tuple[list[str], list[str | int | bytes]]:
    keys = [present_key(), *(_key(state.transaction_id) for state in states)]
    arguments: list[str | int | bytes] = [COUNTS_TTL, settings.PROJECTION_TTL, CHANNEL, _encoder.encode(states)]
    for state in states:
        arguments += [state.version, _encoder.encode(state)]
    for field, count in counts.items():
        arguments += [field, count]
    return keys, arguments


def decode_wake_up(data: bytes) -> list[TransactionState]:
    """Decode the states that a message of the channel carries."""
    return _wake_up_decoder.decode(data)


class Projection:
    """The projection for synchronous roles."""

    def __init__(self) -> None:
        self._redis = redis_client(ANSWERS_WITHIN)
        self._script = self._redis.register_script(_WRITE_AND_WAKE)
        self._breaker = CircuitBreaker(_CONSEQUENCE)

    def write_and_wake(self, states: Sequence[TransactionState], *, counts: Counts = NOTHING) -> None:
        """Copy the states and wake their streams. Do nothing while Redis is unavailable: the database is the source of
        truth, and held streams read it (docs/adr/0010)."""
        if not (states or counts) or self._breaker.is_open:
            return
        keys, arguments = _script_arguments(states, counts)
        with self._breaker.noting():
            self._script(keys=keys, args=arguments)

    def forget(self, transaction_ids: Sequence[UUID]) -> None:
        """Replace the copies by empty ones that no state replaces, because a service may still answer. They stay until
        no ticket can be valid. While Redis is unavailable, the copies stay for PROJECTION_TTL."""
        for start in range(0, len(transaction_ids), FORGOTTEN_AT_ONCE):
            if self._breaker.is_open:
                return
            with self._breaker.noting(), self._redis.pipeline(transaction=False) as pipeline:
                for key in map(_key, transaction_ids[start : start + FORGOTTEN_AT_ONCE]):
                    pipeline.hset(key, mapping={"v": FORGOTTEN, "s": ""})
                    pipeline.expire(key, max(settings.TICKET_MAX_AGE, settings.PROJECTION_TTL))
                pipeline.execute()


@cache
def projection() -> Projection:
    """Return this process's projection."""
    return Projection()


class AsyncProjection:
    """The projection for the event loop. While Redis is unavailable, writes do nothing and read() returns None."""

    def __init__(self) -> None:
        self._redis = redis.asyncio.Redis.from_pool(redis_pool(ANSWERS_WITHIN, connections=CONNECTIONS))
        self._script = self._redis.register_script(_WRITE_AND_WAKE)
        self._breaker = CircuitBreaker(_CONSEQUENCE)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def copy(self, state: TransactionState) -> None:
        """Write the copy and wake its streams."""
        await self._write([state], NOTHING)

    async def count(self, counts: Counts) -> None:
        """Add these counts to those of the traffic page."""
        await self._write([], counts)

    async def _write(self, states: Sequence[TransactionState], counts: Counts) -> None:
        keys, arguments = _script_arguments(states, counts)
        await self._ask(lambda: self._script(keys=keys, args=arguments))

    async def read(self, signup_id: UUID) -> TransactionState | None:
        """Return the copy; None if it is lost or forgotten, or Redis is unavailable."""
        copy = await self._ask(lambda: self._redis.hget(_key(signup_id), "s"))
        return _state_decoder.decode(copy) if copy else None

    async def _ask(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """Return Redis's answer; None while Redis is unavailable."""
        if not self._breaker.is_open:
            with self._breaker.noting():
                return await question()
        return None

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[redis.asyncio.client.PubSub]:
        """A subscriber on a dedicated connection without a read timeout."""
        client = redis_listener(ANSWERS_WITHIN)
        # Close both: a subscriber that is cancelled while connecting leaves its connection to the client.
        async with client, client.pubsub() as subscriber:
            yield subscriber
