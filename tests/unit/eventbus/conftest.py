"""The embedded broker of these tests, which need no other server."""

import secrets
from collections.abc import Iterator

import pytest

from eventbus.embedded import EmbeddedBroker
from tests.contract.kafka_messages import validated


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running, validated({"bootstrap.servers": running.bootstrap_servers}):
        yield running


@pytest.fixture
def embedded(broker: EmbeddedBroker, settings) -> EmbeddedBroker:
    """The broker, to which the settings point. The prefix of topics and groups is unique to the test."""
    return use(broker, settings)


def use(broker: EmbeddedBroker, settings) -> EmbeddedBroker:
    settings.KAFKA_BOOTSTRAP_SERVERS = broker.bootstrap_servers
    settings.KAFKA_EMBEDDED = True
    settings.KAFKA_PREFIX = f"{secrets.token_hex(4)}-"
    return broker
