"""Batches of messages on a real OpenSearch node, through the handler of the subscription."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest
from django.conf import LazySettings

from eventbus.batch_processor import BatchProcessor
from eventbus.errors import BugError
from eventbus.messages import Incoming, dead_letter
from eventbus.metrics import ReadingMetrics
from eventsearch import search_index
from eventsearch.indexing import Indexer, subscription
from eventsearch.search_index import OpenSearchUnavailableError, RefusedDocumentError
from eventsearch.upkeep import delete_old
from runtime.errors import PermanentError
from tests.servers import OpenSearchServer

pytestmark = pytest.mark.needs("opensearch")

SENT_AT = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)
DAY = "2026.11.27"


@pytest.fixture
def indexer(search_settings: LazySettings) -> Iterator[Indexer]:
    handler = subscription().handle
    assert isinstance(handler, Indexer)
    yield handler
    handler.index.close()


def message(
    offset: int = 0, *, topic: str = "user.newUser.res", sent_at: datetime = SENT_AT, **value: object
) -> Incoming:
    fields = {"signupId": str(uuid4()), "userId": "mina.k", "service": "chat", "status": "SUCCESS", **value}
    encoded = msgspec.json.encode(fields)
    return Incoming(topic, 0, offset, b"mina.k", encoded, (), int(sent_at.timestamp() * 1000))


def letter_of(asked: Incoming, offset: int = 0) -> Incoming:
    """The dead letter of a message, as a consumer reads it."""
    letter = dead_letter(asked, PermanentError("mina@example.org is no user"), group="chat")
    return Incoming(letter.topic, 0, offset, b"mina.k", letter.value, letter.headers, asked.timestamp_ms)


def names_of(opensearch: OpenSearchServer, settings: LazySettings) -> set[str]:
    listed = opensearch.ask("GET", f"_cat/indices/{settings.OPENSEARCH_INDEX}-*?format=json")
    return {each["index"] for each in listed}


def test_a_message_that_is_read_again_changes_nothing(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    batch = [message(offset) for offset in range(3)]
    indexer(batch)
    indexer(batch[1:])
    documents = opensearch.documents(f"{search_settings.OPENSEARCH_INDEX}-*")
    assert sorted(each["_id"] for each in documents) == [f"user.newUser.res:0:{offset}" for offset in range(3)]
    assert {each["_index"] for each in documents} == {f"{search_settings.OPENSEARCH_INDEX}-{DAY}"}


def test_each_day_of_kafkas_clock_has_an_index_and_impossible_times_share_one(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    day_before = message(1, sent_at=SENT_AT - timedelta(days=1))
    far_ahead = message(2, sent_at=datetime.now(UTC) + timedelta(days=400))
    unknown = Incoming("user.newUser.res", 0, 3, None, b"{}", (), None)
    indexer([message(0), day_before, far_ahead, unknown])
    days = {name.removeprefix(f"{search_settings.OPENSEARCH_INDEX}-") for name in names_of(opensearch, search_settings)}
    assert days == {DAY, "2026.11.26", "undated"}


def test_fields_can_be_filtered_and_sorted_as_the_template_says(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    asked = message(7, topic="user.newUser.req", attempt=3, version=2)
    indexer([message(0, status="FAIL", reason="duplicate: userId"), message(1), letter_of(asked)])
    index = f"{search_settings.OPENSEARCH_INDEX}-{DAY}"
    mapping = opensearch.ask("GET", f"{index}/_mapping")[index]["mappings"]
    assert mapping["dynamic"] == "false"
    assert mapping["properties"]["@timestamp"] == {"type": "date"}
    assert mapping["properties"]["letter"]["properties"]["group"] == {"type": "keyword"}
    opensearch.ask("POST", f"{index}/_refresh")

    def count_of(**terms: object) -> int:
        filters = [{"term": {name.replace("__", "."): value}} for name, value in terms.items()]
        return opensearch.ask("POST", f"{index}/_count", {"query": {"bool": {"filter": filters}}})["count"]

    assert count_of(reason="duplicate: userId") == 1
    assert count_of(message="deadLetter", letter__group="chat", letter__error="runtime.errors.PermanentError") == 1
    assert count_of(kind="signUp") == 3


def test_opensearch_has_no_personal_data(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    person = {"email": "mina@example.org", "userName": "Mina Kim", "role": "ROLE_USER"}
    asked = message(0, topic="user.newUser.req", **person)
    indexer([asked, letter_of(asked), message(1, reason="Mina Kim", service="mina@example.org")])
    kept = msgspec.json.encode(opensearch.documents(f"{search_settings.OPENSEARCH_INDEX}-*")).decode().lower()
    assert "user.newuser.req:0:0" in kept
    assert [word for word in ("mina", "kim", "example.org", "role_user") if word in kept] == []


def test_old_days_are_deleted_and_recent_ones_stay(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    now = datetime.now(UTC)
    kept = now - timedelta(days=search_settings.OPENSEARCH_RETENTION_DAYS)
    too_old = kept - timedelta(days=2)
    indexer([message(0, sent_at=now), message(1, sent_at=kept), message(2, sent_at=too_old)])
    undated = Incoming("user.newUser.res", 0, 3, None, b"{}", (), None)
    indexer([undated])
    delete_old(indexer.index)
    days = {name.removeprefix(f"{search_settings.OPENSEARCH_INDEX}-") for name in names_of(opensearch, search_settings)}
    assert days == {f"{now:%Y.%m.%d}", f"{kept:%Y.%m.%d}", "undated"}
    # The age of the index without a day is counted from its creation.
    later = now + timedelta(days=search_settings.OPENSEARCH_RETENTION_DAYS + 2)
    assert f"{search_settings.OPENSEARCH_INDEX}-undated" in indexer.index.delete_old(later)
    assert indexer.index.delete_old(later) == []


def test_installations_with_similar_prefixes_share_a_node_and_no_index(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    own = search_settings.OPENSEARCH_INDEX
    indexer.index.prepare()
    foreign = [f"{own}2-2020.01.01", f"other-{own}-2020.01.01", f"{own}-test-2020.01.01", f"{own}-test-undated"]
    for name in foreign:
        opensearch.ask("PUT", name)
    search_settings.OPENSEARCH_INDEX = f"{own}-test"
    neighbour = subscription().handle.index
    neighbour.prepare()
    neighbour.close()
    assert indexer.index.delete_old(datetime.now(UTC) + timedelta(days=1000)) == []
    assert [name for name in foreign if name not in opensearch.ask("GET", "_aliases")] == []


# --- What OpenSearch refuses --------------------------------------------------------------------------------------


class Letters:
    """A stand-in for a producer that keeps the published dead letters."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send_all(self, messages: list, *, timeout: float) -> None:
        self.sent += [f"{each.topic} {dict(each.headers)['dlt-offset'].decode()}" for each in messages]


@pytest.fixture
def processed(indexer: Indexer) -> Callable[[list[Incoming]], list[str]]:
    """Process a batch as the consumer does, and return the dead letters."""

    def process(batch: list[Incoming]) -> list[str]:
        letters = Letters()
        own = subscription()
        BatchProcessor(own, letters, ReadingMetrics(own.topics, own.group)).process(batch)
        return letters.sent

    return process


def break_mapping(opensearch: OpenSearchServer, settings: LazySettings, **types: str) -> None:
    """Create the day's index with types that differ from the template's."""
    properties = {name: {"type": kind} for name, kind in types.items()}
    opensearch.ask("PUT", f"{settings.OPENSEARCH_INDEX}-{DAY}", {"mappings": {"properties": properties}})


def test_a_message_whose_document_is_rejected_is_dead_lettered_alone(
    processed: Callable[[list[Incoming]], list[str]], opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    break_mapping(opensearch, search_settings, reason="integer")
    batch = [message(offset) for offset in range(20)]
    batch[13] = message(13, status="FAIL", reason="removed")
    assert processed(batch) == ["user.newUser.res.search.dlt 13"]
    documents = opensearch.documents(f"{search_settings.OPENSEARCH_INDEX}-*")
    assert {each["offset"] for each in documents} == {*range(20)} - {13}


def test_if_most_documents_are_rejected_the_process_ends_and_nothing_is_dead_lettered(
    processed: Callable[[list[Incoming]], list[str]], opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    break_mapping(opensearch, search_settings, status="integer")
    with pytest.raises(BugError):
        processed([message(offset) for offset in range(20)])


def test_a_dead_letter_whose_document_is_rejected_waits(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    break_mapping(opensearch, search_settings, message="integer")
    with pytest.raises(RefusedDocumentError):
        indexer([message(0)])
    with pytest.raises(search_index.TransientError, match="a dead letter can't be indexed: OpenSearch rejects"):
        indexer([letter_of(message(1, topic="user.newUser.req"))])


def test_an_index_that_is_temporarily_read_only_makes_the_batch_wait(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    indexer([message(0)])
    index = f"{search_settings.OPENSEARCH_INDEX}-{DAY}"
    opensearch.ask("PUT", f"{index}/_settings", {"index.blocks.write": True})
    with pytest.raises(OpenSearchUnavailableError, match="403 cluster_block_exception"):
        indexer([message(1)])
    opensearch.ask("PUT", f"{index}/_settings", {"index.blocks.write": False})
    indexer([message(1)])
    assert len(opensearch.documents(index)) == 2


def test_an_overloaded_node_makes_the_batch_wait(indexer: Indexer, opensearch: OpenSearchServer) -> None:
    indexer([message(0)])
    limit = "network.breaker.inflight_requests.limit"
    opensearch.ask("PUT", "_cluster/settings", {"transient": {limit: "4kb"}})
    try:
        with pytest.raises(OpenSearchUnavailableError, match="429 circuit_breaking_exception"):
            indexer([message(offset) for offset in range(100)])
    finally:
        opensearch.ask("PUT", "_cluster/settings", {"transient": {limit: None}})
    indexer([message(offset) for offset in range(100)])


def test_a_frozen_node_makes_the_batch_wait(
    indexer: Indexer, opensearch: OpenSearchServer, monkeypatch: pytest.MonkeyPatch, search_settings: LazySettings
) -> None:
    monkeypatch.setattr(search_index, "ANSWERS_WITHIN", 1.0)
    monkeypatch.setattr(search_index, "WRITTEN_WITHIN", 1.0)
    opensearch.pause()
    try:
        with pytest.raises(OpenSearchUnavailableError, match="can't be used: TIMEOUT"):
            indexer([message(0)])
    finally:
        opensearch.resume()
    indexer([message(0)])
    assert len(opensearch.documents(f"{search_settings.OPENSEARCH_INDEX}-*")) == 1


def test_a_template_that_was_lost_with_the_node_is_stored_again(
    indexer: Indexer, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    indexer([message(0)])
    index = f"{search_settings.OPENSEARCH_INDEX}-{DAY}"
    opensearch.ask("PUT", f"{index}/_settings", {"index.blocks.write": True})
    with pytest.raises(OpenSearchUnavailableError):
        indexer([message(1)])
    opensearch.ask("DELETE", index)
    opensearch.ask("DELETE", f"_index_template/{search_settings.OPENSEARCH_INDEX}")
    indexer([message(1)])
    assert opensearch.ask("GET", f"{index}/_mapping")[index]["mappings"]["dynamic"] == "false"
