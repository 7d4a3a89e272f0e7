"""The subscription of the search, which `manage.py index_events` runs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

from django.conf import settings

from eventbus.deadletters.letters import Origin, origins_of
from eventbus.messages import HandledBatch, Incoming, Subscription
from eventbus.subscriptions import subscriptions_of_services
from eventsearch.documents import EVENT_TOPICS, document_of
from runtime.errors import TransientError

if TYPE_CHECKING:
    from eventsearch.search_index import SearchIndex

# The consumer group.
GROUP: Final = "search"


class Indexer:
    """Index a batch. This is an eventbus.messages.Handler.

    A document that OpenSearch rejects makes the batch fail, so that eventbus.batch_processor finds its message and
    dead-letters it, or ends the process if most messages fail.
    """

    def __init__(self, origins: Mapping[str, Origin]) -> None:
        self._origins = origins

    @cached_property
    def index(self) -> "SearchIndex":
        # Imported here, because every process loads the subscription, and only the indexer needs the client.
        from eventsearch.search_index import SearchIndex

        return SearchIndex(
            settings.OPENSEARCH_URL, name=settings.OPENSEARCH_INDEX, days=settings.OPENSEARCH_RETENTION_DAYS
        )

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        from eventsearch.search_index import RefusedDocumentError

        now = datetime.now(UTC)
        try:
            self.index.write([document_of(message, self._origins, now=now) for message in batch])
        except RefusedDocumentError as error:
            if len(batch) == 1 and batch[0].topic in self._origins:
                # A dead letter has no dead-letter topic. Its document has only our own fields, so the mapping is wrong.
                raise TransientError(f"a dead letter can't be indexed: {error}") from error
            raise
        return HandledBatch()


def subscription() -> Subscription:
    """Return the subscription: sign-ups, changes, removals, and the dead letters of all other groups."""
    origins = origins_of(subscriptions_of_services())
    return Subscription(group=GROUP, topics=(*EVENT_TOPICS, *origins), handle=Indexer(origins))
