"""An indexer's work besides indexing: deleting old indices and reporting its lag."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Final

from eventbus.inspection.lag import LagReader
from eventbus.messages import Subscription
from eventsearch.search_index import SearchIndex
from runtime.errors import is_transient

logger = logging.getLogger(__name__)

# Seconds between two reports of the lag, and between two searches for old indices.
LAG_EVERY: Final = 15.0
DELETES_EVERY: Final = 3600.0
# Seconds that a stopping role waits for the request in progress.
ENDS_WITHIN: Final = 1.0


@contextmanager
def upkeep(index: SearchIndex, subscription: Subscription) -> Iterator[None]:
    """Run on a background thread for the duration of the context. Nothing waits for it."""
    stop = threading.Event()
    thread = threading.Thread(target=_run, args=(index, subscription, stop), name="upkeep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(ENDS_WITHIN)


def _run(index: SearchIndex, subscription: Subscription, stop: threading.Event) -> None:
    deletes_at = 0.0
    with closing(LagReader(stop)) as reader:
        while not stop.wait(LAG_EVERY if deletes_at else 0):
            if time.monotonic() >= deletes_at:
                deletes_at = time.monotonic() + DELETES_EVERY
                delete_old(index)
            _report_lag(reader, subscription, stop)


def delete_old(index: SearchIndex) -> None:
    """Delete the indices that are too old. If OpenSearch is unavailable, the next attempt deletes them."""
    try:
        deleted = index.delete_old(datetime.now(UTC))
    except Exception as error:
        if not is_transient(error):
            logger.exception("old indices can't be deleted")
        else:
            logger.warning("cannot delete old indices, will retry: %s", error)
    else:
        if deleted:
            logger.info("deleted the indices %s, which were too old", ", ".join(deleted))


def _report_lag(reader: LagReader, subscription: Subscription, stop: threading.Event) -> None:
    try:
        for topic in subscription.topics:
            if stop.is_set():
                return
            reader.lag(topic, subscription.group)
    except Exception as error:
        if not is_transient(error):
            logger.exception("the lag can't be read")
