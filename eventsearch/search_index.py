"""The indices in OpenSearch: one for each day, made from a template and deleted when they are too old."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException, TransportError

from eventsearch.documents import DAY_FORMAT, MAPPING, UNDATED, Document
from runtime.errors import TransientError
from runtime.text_length import shortened

# Timeouts in seconds for connecting to OpenSearch and for each silence while it answers: of small requests, for which a
# starting role waits, and of a batch, which a busy node indexes slowly. A stop request abandons a batch earlier.
ANSWERS_WITHIN: Final = 4.0
WRITTEN_WITHIN: Final = 30.0
# Maximum characters of an error that are logged or stored with a dead letter.
ERROR_MAX: Final = 300
# Errors that a document's own content causes. All others (a full disk, a full queue, too many shards, a closed index)
# are the cluster's fault and pass.
_FAULTS_OF_A_DOCUMENT: Final = frozenset(
    {
        "document_parsing_exception",
        "illegal_argument_exception",
        "mapper_parsing_exception",
        "strict_dynamic_mapping_exception",
    }
)
_BAD_REQUEST: Final = 400
_encode: Final = msgspec.json.Encoder().encode


class OpenSearchUnavailableError(TransientError):
    """OpenSearch is down, slow or overloaded, or refuses this client."""


class RefusedDocumentError(Exception):
    """OpenSearch rejects at least one of the documents for its content. It may have indexed the others."""


class SearchIndex:
    """Writes documents and deletes old indices. Every method raises OpenSearchUnavailableError if OpenSearch can't do
    it now."""

    def __init__(self, url: str, *, name: str, days: int) -> None:
        """`url`: scheme://user:password@host:port?ca_certs=/path. `name`: the prefix of the names of the indices.
        `days`: how long a day's index is kept."""
        parts = urlsplit(url)
        options: dict[str, Any] = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.name = name
        # The address without the password, for logs.
        self.address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._days = days
        self._is_prepared = False
        # The consumer repeats a batch, with growing pauses; a second mechanism would only delay a stop request.
        self._client = OpenSearch(
            [parts._replace(query="").geturl()],
            timeout=ANSWERS_WITHIN,
            max_retries=0,
            **options,
        )

    def prepare(self) -> None:
        """Store the template of the indices. Without it, OpenSearch would guess the types of fields."""
        template = {
            # The years begin with 2. A pattern like name-* would claim the indices of an installation called name-test.
            "index_patterns": [f"{self.name}-2*", f"{self.name}-{UNDATED}"],
            "priority": 100,
            "template": {
                # A second node gets a copy; a single one would wait for it forever.
                "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
                "mappings": MAPPING,
            },
        }
        self._ask(self._client.indices.put_index_template, name=self.name, body=template)
        self._is_prepared = True

    def write(self, documents: Sequence[Document]) -> None:
        """Index the documents. Writing the same again changes nothing.

        Raises RefusedDocumentError if one of them is rejected for its content.
        """
        if not self._is_prepared:
            self.prepare()
        lines = b"".join(self._lines(documents))
        answer = self._ask(self._client.bulk, body=lines, request_timeout=WRITTEN_WITHIN)
        if not answer["errors"]:
            return
        results = [result for item in answer["items"] for result in item.values()]
        errors = [(result["status"], result["error"]) for result in results if "error" in result]
        for status, error in errors:
            if not _is_fault_of_document(status, error):
                self._is_prepared = False
                raise OpenSearchUnavailableError(f"OpenSearch does not index a document: {_words(status, error)}")
        raise RefusedDocumentError(f"OpenSearch rejects {len(errors)} documents: {_words(*errors[0])}")

    def delete_old(self, now: datetime) -> list[str]:
        """Delete the indices of days that ended more than `days` days ago, and the one of messages without a credible
        time if it was made as long ago. Return the names of the deleted ones."""
        last = now - timedelta(days=self._days + 1)
        options = {"flat_settings": "true", "name": "index.creation_date"}
        indices = self._ask(self._client.indices.get_settings, index=f"{self.name}-*", params=options)
        old = []
        for name, index in indices.items():
            since = self._beginning_of(name, made_at_ms=int(index["settings"]["index.creation_date"]))
            if since is not None and since < last:
                # Another indexer may have deleted it.
                self._ask(self._client.indices.delete, index=name, ignore=404)
                old.append(name)
        return old

    def close(self) -> None:
        self._client.close()

    def _beginning_of(self, index: str, *, made_at_ms: int) -> datetime | None:
        """Return when the events of an index begin; None if its name is not one of ours."""
        day = index.removeprefix(f"{self.name}-")
        if day == UNDATED:
            return datetime.fromtimestamp(made_at_ms / 1000, UTC)
        try:
            return datetime.strptime(day, DAY_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            return None

    def _lines(self, documents: Iterable[Document]) -> Iterable[bytes]:
        for document in documents:
            yield _encode({"index": {"_index": f"{self.name}-{document.day}", "_id": document.id}})
            yield b"\n"
            yield _encode(document.source)
            yield b"\n"

    def _ask(self, call: Any, **arguments: Any) -> Any:
        """Call a method of the client. Raises OpenSearchUnavailableError for every error: a whole request is never one
        message's fault, even if a wrong address answers 404."""
        try:
            answer = call(**arguments)
        except OpenSearchException as error:
            self._is_prepared = False
            raise OpenSearchUnavailableError(
                f"OpenSearch at {self.address} can't be used: {_in_words(error)}"
            ) from error
        if not isinstance(answer, dict):
            raise OpenSearchUnavailableError(f"OpenSearch at {self.address} can't be used: it did not answer with JSON")
        return answer


def _is_fault_of_document(status: int, error: dict[str, Any]) -> bool:
    return status == _BAD_REQUEST and error.get("type") in _FAULTS_OF_A_DOCUMENT


def _words(status: int, error: dict[str, Any]) -> str:
    # The preview quotes the value, which is not needed to find the field.
    reason = re.sub(r"Preview of field's value: .*", "", str(error.get("reason", "")))
    return shortened(f"{status} {error.get('type')}: {reason}", ERROR_MAX)


def _in_words(error: OpenSearchException) -> str:
    if isinstance(error, TransportError):
        return shortened(f"{error.status_code} {error.error}", ERROR_MAX)
    return shortened(f"{type(error).__name__}: {error}", ERROR_MAX)
