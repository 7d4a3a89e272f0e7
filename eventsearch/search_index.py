"""The indices in OpenSearch: one for each day, made from a template and deleted when they are too old."""

import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from opensearchpy import NotFoundError, OpenSearch
from opensearchpy.exceptions import OpenSearchException, TransportError

from eventsearch.documents import DAY_FORMAT, MAPPING, Document
from runtime.errors import TransientError
from runtime.untrusted import shortened

logger = logging.getLogger(__name__)

# Timeout in seconds for connecting to OpenSearch, and for each silence while it answers.
ANSWERS_WITHIN: Final = 10.0
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


class UnavailableError(TransientError):
    """OpenSearch is down, slow or overloaded, or refuses this client."""


class RefusedDocumentError(Exception):
    """OpenSearch rejects at least one of the documents for its content. It may have indexed the others."""


class SearchIndex:
    """Writes documents and deletes old indices. Every method raises UnavailableError if OpenSearch can't do it now."""

    def __init__(self, url: str, *, name: str, days: int) -> None:
        """`url`: scheme://user:password@host:port?ca_certs=/path. `name`: what the names of the indices begin with.
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
            "index_patterns": [f"{self.name}-*"],
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
        answer = self._ask(self._client.bulk, body=b"".join(self._lines(documents)))
        if not answer["errors"]:
            return
        results = [result for item in answer["items"] for result in item.values()]
        errors = [(result["status"], result["error"]) for result in results if "error" in result]
        for status, error in errors:
            if not _is_fault_of_document(status, error):
                self._is_prepared = False
                raise UnavailableError(f"OpenSearch does not index a document: {_words(status, error)}")
        raise RefusedDocumentError(f"OpenSearch rejects {len(errors)} documents: {_words(*errors[0])}")

    def delete_old(self, now: datetime) -> list[str]:
        """Delete the indices of days that ended more than `days` days ago, and those of messages without a credible
        time that were made as long ago. Return the names of the deleted ones."""
        last = now - timedelta(days=self._days + 1)
        options = {"flat_settings": "true", "name": "index.creation_date"}
        indices = self._ask(self._client.indices.get_settings, index=f"{self.name}-*", params=options)
        old = []
        for name, index in indices.items():
            made_at = datetime.fromtimestamp(int(index["settings"]["index.creation_date"]) / 1000, UTC)
            if (day_of(name, self.name) or made_at) < last:
                # Another indexer may have deleted it.
                with suppress(NotFoundError):
                    self._ask(self._client.indices.delete, index=name)
                    old.append(name)
        return old

    def close(self) -> None:
        self._client.close()

    def _lines(self, documents: Iterable[Document]) -> Iterable[bytes]:
        for document in documents:
            yield _encode({"index": {"_index": f"{self.name}-{document.day}", "_id": document.id}})
            yield b"\n"
            yield _encode(document.source)
            yield b"\n"

    def _ask(self, call: Any, **arguments: Any) -> Any:
        """Call a method of the client. Raises NotFoundError as it is, and UnavailableError for any other error: a whole
        request is never one message's fault."""
        try:
            return call(**arguments)
        except NotFoundError:
            raise
        except OpenSearchException as error:
            self._is_prepared = False
            raise UnavailableError(f"OpenSearch at {self.address} can't be used: {_in_words(error)}") from error


def day_of(index: str, name: str) -> datetime | None:
    """Return the beginning of the day of an index; None if its name has none."""
    day = index.removeprefix(f"{name}-")
    try:
        return datetime.strptime(day, DAY_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


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
