"""The rights of each user in Redis: deploy/redis-users.sh, as compose.yaml has it."""

from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from signup_sync.participants import PARTICIPANTS
from tests.contract.test_compose import services
from tests.servers.composed import ComposedRedis

pytestmark = pytest.mark.needs("redis")


@pytest.fixture(scope="module")
def composed() -> Iterator[ComposedRedis]:
    with ComposedRedis(services()["redis"]) as server:
        yield server


def connect(server: ComposedRedis, role: str) -> redis.Redis:
    """Connect as a role of compose.yaml."""
    url = services()[role]["environment"]["REDIS_URL"].replace("redis:6379", server.address)
    return redis.Redis.from_url(url, decode_responses=True, protocol=2)


@pytest.mark.parametrize("role", PARTICIPANTS)
def test_a_participant_may_report_its_instance(composed, role):
    with connect(composed, role) as participant:
        participant.set("instance:chat", "told", ex=60)
        participant.zadd("instances", {"chat": 1.0})
        participant.expire("instances", 60)
        participant.delete("instance:chat")
        participant.zrem("instances", "chat")


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "instance:chat"),
        ("GET", "signup:1"),
        ("DEL", "signup:1"),
        ("EXPIRE", "signup:1", "0"),
        ("SET", "signup:1", "green"),
        ("SET", "rate:1", "0"),
        ("PUBLISH", "signups", "green"),
        ("SUBSCRIBE", "signups"),
        ("EVAL", "return 1", "0"),
        ("SCAN", "0"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("ACL", "SETUSER", "participant", "allkeys"),
        ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("MONITOR",),
        ("SHUTDOWN",),
        ("REPLICAOF", "127.0.0.1", "1"),
    ],
)
def test_a_participant_may_use_no_other_commands_or_keys(composed, command):
    with connect(composed, "chat") as participant, pytest.raises(NoPermissionError):
        participant.execute_command(*command)


@pytest.mark.parametrize(
    "command",
    [("CONFIG", "SET", "dir", "/tmp"), ("ACL", "SETUSER", "auth", "+@all"), ("FLUSHALL",), ("KEYS", "*"), ("SHUTDOWN",),
     ("REPLICAOF", "127.0.0.1", "1"), ("MONITOR",), ("SAVE",)],
)  # fmt: skip
def test_auth_has_no_command_that_concerns_the_server(composed, command):
    with connect(composed, "web") as auth, pytest.raises(NoPermissionError):
        auth.execute_command(*command)


@pytest.mark.parametrize("url", ["redis://{}", "redis://:wrong@{}", "redis://auth:wrong@{}", "redis://default:@{}"])
def test_nobody_gets_in_without_a_password(composed, url):
    client = redis.Redis.from_url(url.format(composed.address))
    with client, pytest.raises((AuthenticationError, NoPermissionError)):
        client.get("signup:1")
