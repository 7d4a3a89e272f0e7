"""A real OpenSearch node for the tests of this folder."""

import secrets
from collections.abc import Iterator

import pytest
from django.conf import LazySettings

from tests.servers import OpenSearchServer


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
