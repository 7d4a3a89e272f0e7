"""Passwords of Kafka are replaced with the guide's own commands, while people sign up."""

import re
from asyncio import to_thread

import pytest

from tests.compose.clients import keep_signing_up, sign_up_all
from tests.compose.installation import Installation
from tests.compose.test_restarts import check_all_are_stored
from tests.conftest import new_person
from tests.operations_guide import commands_after
from tests.waiting import eventually

pytestmark = pytest.mark.needs("docker")

# Runs in a role's container. Prints whether Kafka accepts the password of these client settings.
IS_ACCEPTED = """
import json, os
from confluent_kafka import KafkaError, Producer

refusals = []
config = json.loads({config!r}) | {{"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]}}
producer = Producer(config | {{"error_cb": lambda error: refusals.append(error.code())}})
topics = {{}}
while not topics and KafkaError._AUTHENTICATION not in refusals:
    try:
        topics = producer.list_topics(timeout=1).topics
    except Exception:
        producer.poll(0)
print(bool(topics))
"""


async def test_sign_ups_continue_while_a_password_of_kafka_is_replaced(installation: Installation) -> None:
    before = await to_thread(config_of, installation, "chat")
    async with keep_signing_up(installation.address, at_once=3) as done:
        await to_thread(eventually, lambda: done, what="somebody has signed up")
        installation.delete_setting("KAFKA_CHAT_PASSWORD")
        make_secrets, replace_kafka, _ = commands_after("**Kafka and Redis**")
        others = await to_thread(started_at, installation, "auth", "web", "customer", "redis")
        await to_thread(installation.run, "sh", "-c", make_secrets)
        await to_thread(installation.run, "sh", "-c", replace_kafka)
        assert await to_thread(started_at, installation, "auth", "web", "customer", "redis") == others
        await to_thread(installation.wait_until_healthy)
    later = await sign_up_all(installation.address, [new_person() for _ in range(5)], at_once=5)

    await to_thread(check_all_are_stored, installation, [*done, *later])
    after = await to_thread(config_of, installation, "chat")
    assert re.sub('"[0-9a-f]{64}"', "", before) == re.sub('"[0-9a-f]{64}"', "", after), "only the password differs"
    answers = [
        await to_thread(installation.python, "chat", IS_ACCEPTED.format(config=each)) for each in (before, after)
    ]
    assert answers == ["False\n", "True\n"]


def started_at(installation: Installation, *services: str) -> set[str]:
    """Return each container of these services with the time of its start."""
    names = [each["Name"] for each in installation.containers(*services)]
    return {*installation.docker("inspect", "--format", "{{.Name}} {{.State.StartedAt}}", *names).splitlines()}


def config_of(installation: Installation, role: str) -> str:
    return installation.compose("exec", "--no-TTY", role, "printenv", "KAFKA_CLIENT_CONFIG").strip()
