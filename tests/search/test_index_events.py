"""`manage.py index_events` as a process: how it starts and stops, and its messages."""

import time
from collections.abc import Callable
from urllib.request import urlopen

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import CommandError

from eventbus.messages import Outgoing, cloud_event_headers
from eventbus.producer import EventProducer
from eventbus.topics import ensure_topics
from eventsearch.indexing import subscription
from tests.contract import kafka_messages
from tests.servers import OpenSearchServer, free_port
from tests.servers.process import LOOPBACK, http_status
from tests.stack import RoleProcess
from tests.waiting import eventually

pytestmark = pytest.mark.needs("kafka", "redis", "opensearch")


@pytest.fixture
def start(indexer_of: Callable[[str], RoleProcess]) -> Callable[[str], RoleProcess]:
    """Launch the command with an OPENSEARCH_URL."""

    def launch(url: str) -> RoleProcess:
        role = indexer_of(url)
        role.launch()
        return role

    return launch


def stop_in_time(role: RoleProcess) -> None:
    began = time.monotonic()
    assert role.stop() == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in role.log()


def test_without_opensearch_url_the_error_names_the_setting(settings: LazySettings) -> None:
    settings.OPENSEARCH_URL = ""
    with pytest.raises(CommandError, match="set OPENSEARCH_URL"):
        call_command("index_events")


def test_the_indexer_waits_for_opensearch_and_never_logs_its_password(start: Callable[[str], RoleProcess]) -> None:
    port = free_port()
    role = start(f"http://signup:its-password@{LOOPBACK}:{port}")
    eventually(lambda: f"waits for OpenSearch at http://{LOOPBACK}:{port}: " in role.log())
    assert http_status(role.port, "/health/live") == 200
    assert http_status(role.port, "/health/ready") == 503
    stop_in_time(role)
    assert "its-password" not in role.log()


def test_the_indexer_indexes_new_messages_and_stops_in_time(
    start: Callable[[str], RoleProcess], opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    role = start(search_settings.OPENSEARCH_URL)
    role.wait_until_ready()
    topic = "user.newUser.res"
    ensure_topics(subscription().topics)
    kafka_messages.is_meant(topic, b"no JSON")
    producer = EventProducer()
    producer.send_all(
        [Outgoing(topic, "mina", b"no JSON", cloud_event_headers(type=topic, source="/chat"))], timeout=30
    )
    producer.close(timeout=5)

    def found() -> list[dict[str, object]]:
        opensearch.ask("POST", f"{search_settings.OPENSEARCH_INDEX}-*/_refresh")
        return opensearch.documents(f"{search_settings.OPENSEARCH_INDEX}-*")

    [document] = eventually(found)
    assert (document["topic"], document["readable"]) == (topic, False)
    # The batch counts as handled just after its documents are stored.
    count = f'eventbus_messages_total{{group="search",topic="{topic}"}} 1.0'
    eventually(lambda: count in metrics_of(role))
    stop_in_time(role)


def metrics_of(role: RoleProcess) -> str:
    with urlopen(f"http://{LOOPBACK}:{role.port}/metrics", timeout=30) as answer:
        return answer.read().decode()
