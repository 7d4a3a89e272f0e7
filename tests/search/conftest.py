"""A real OpenSearch node for the tests of this folder."""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings

from tests.servers import KafkaServer, OpenSearchServer, free_port
from tests.servers.process import ROOT
from tests.stack import RoleProcess


@pytest.fixture(scope="session")
def opensearch() -> Iterator[OpenSearchServer]:
    """The node of the whole run. A test that stops it must start it again."""
    with OpenSearchServer() as node:
        yield node


@pytest.fixture
def search_settings(opensearch: OpenSearchServer, settings: LazySettings) -> LazySettings:
    """The settings of an installation with this OpenSearch, and names of its own."""
    name = secrets.token_hex(4)
    settings.OPENSEARCH_URL = opensearch.env["OPENSEARCH_URL"]
    settings.OPENSEARCH_INDEX = f"events-{name}"
    settings.EVENT_READERS = {"search": "eventsearch.indexing.subscription"}
    settings.KAFKA_PREFIX = f"search-{name}-"
    return settings


@pytest.fixture
def indexer_of(
    search_settings: LazySettings, kafka: KafkaServer, tmp_path: Path
) -> Iterator[Callable[[str], RoleProcess]]:
    """Make a process of `manage.py index_events` with an OPENSEARCH_URL and the current settings; it isn't started."""
    roles: list[RoleProcess] = []

    def indexer(url: str) -> RoleProcess:
        port = free_port()
        env = {
            "PATH": os.environ["PATH"],
            "DATA_DIR": str(tmp_path),
            "SECRET_KEY": secrets.token_urlsafe(50),
            "REDIS_URL": os.environ["REDIS_URL"],
            "HEALTH_PORT": str(port),
            "OPENSEARCH_URL": url,
            "OPENSEARCH_INDEX": search_settings.OPENSEARCH_INDEX,
            "KAFKA_PREFIX": search_settings.KAFKA_PREFIX,
            **kafka.env,
        }
        command = [sys.executable, str(ROOT / "manage.py"), "index_events"]
        roles.append(RoleProcess("search", command, env=env, log=tmp_path / "search.log", port=port))
        return roles[-1]

    yield indexer
    for role in roles:
        role.kill()
