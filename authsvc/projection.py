"""The projection: each sign-up's state in Redis, a copy of auth's row, and the wake-up of who watches it.

A copy is written whole and only over an older one, so writers may come in any order and any of them may be repeated.
Wake-ups are at-most-once and carry the states themselves. Losing either costs time, never truth: a lost copy is
read from the database again, and every held stream reads the database with its heartbeat. What the traffic page counts
goes along: each command more would be a way to Redis and back.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Final
from uuid import UUID

import msgspec
import redis
import redis.asyncio
from django.conf import settings

from authsvc.lights import SignUpState
from authsvc.traffic import KEPT, NOTHING, Counts, present_key
from livesettings.redis_clients import redis_client, redis_listener, redis_pool

logger = logging.getLogger(__name__)

CHANNEL: Final = "signups"
CONNECTIONS: Final = 16
# Seconds that Redis may take.
ANSWERS_WITHIN: Final = 5.0

# KEYS: the present second's figures, then the copies. ARGV: seconds to live of figures and of copies, the channel and
# its message, version and copy for each of the copies, then what to count, each a field and a number.
# A copy is a hash: v is the version, s the state.
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
_state_decoder = msgspec.json.Decoder(SignUpState)
_wake_up_decoder = msgspec.json.Decoder(list[SignUpState])


def _key(signup_id: UUID) -> str:
    return f"signup:{signup_id}"


def _script_arguments(states: Sequence[SignUpState], counts: Counts) -> tuple[list[str], list[str | int | bytes]]:
    keys = [present_key(), *(_key(state.signup_id) for state in states)]
    arguments: list[str | int | bytes] = [KEPT, settings.PROJECTION_TTL, CHANNEL, _encoder.encode(states)]
    for state in states:
        arguments += [state.version, _encoder.encode(state)]
    for field, count in counts.items():
        arguments += [field, count]
    return keys, arguments


def decode_wake_up(data: bytes) -> list[SignUpState]:
    """The states that a message of the channel carries."""
    return _wake_up_decoder.decode(data)


class Projection:
    """For synchronous roles."""

    def __init__(self) -> None:
        self._redis = redis_client(ANSWERS_WITHIN)
        self._script = self._redis.register_script(_WRITE_AND_WAKE)

    def write_and_wake(self, states: Sequence[SignUpState], *, counts: Counts = NOTHING) -> None:
        """Raises redis.RedisError when Redis is away."""
        if states:
            keys, arguments = _script_arguments(states, counts)
            self._script(keys=keys, args=arguments)


@cache
def projection() -> Projection:
    """That of this process."""
    return Projection()


class AsyncProjection:
    """For the event loop."""

    def __init__(self) -> None:
        self._redis = redis.asyncio.Redis.from_pool(redis_pool(ANSWERS_WITHIN, connections=CONNECTIONS))
        self._script = self._redis.register_script(_WRITE_AND_WAKE)

    async def close(self) -> None:
        """Ends the connections."""
        await self._redis.aclose()

    async def copy(self, state: SignUpState) -> None:
        """Writes the copy and wakes; where Redis is away auth's row is enough."""
        await self._write([state], NOTHING)

    async def count(self, counts: Counts) -> None:
        """Counts these for the traffic page; where Redis is away they are not counted."""
        await self._write([], counts)

    async def _write(self, states: Sequence[SignUpState], counts: Counts) -> None:
        keys, arguments = _script_arguments(states, counts)
        try:
            await self._script(keys=keys, args=arguments)
        except redis.RedisError as error:
            logger.warning("Redis does not take copies and counts: %s", error)

    async def read(self, signup_id: UUID) -> SignUpState | None:
        """The copy; None where it is lost or Redis is away."""
        try:
            copy = await self._redis.hget(_key(signup_id), "s")
        except redis.RedisError as error:
            logger.warning("the projection can't be read: %s", error)
            return None
        return _state_decoder.decode(copy) if copy else None

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[redis.asyncio.client.PubSub]:
        """A subscriber of its own connection, which waits without a time limit."""
        client = redis_listener(ANSWERS_WITHIN)
        # Both: a subscriber that is cancelled while it connects leaves its connection to the client.
        async with client, client.pubsub() as subscriber:
            yield subscriber
