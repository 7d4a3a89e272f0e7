"""Copy dead letters from their topics into the table."""

import logging
import math
import threading
import time
from typing import Final

from confluent_kafka import Consumer, KafkaException
from django.db import close_old_connections

from eventbus.clients import client_config, close_consumer
from eventbus.deadletters.letters import CHUNK, Origins, store_letters
from eventbus.errors import is_fatal
from eventbus.group_member import GroupMember, group_config
from eventbus.incoming import as_incoming, is_error_report
from eventbus.incoming_traces import traces_of
from eventbus.messages import Incoming
from eventbus.metrics import DEAD_LETTERS_WAITING
from eventbus.models import DeadLetter
from runtime.backoff import growing_pauses
from runtime.errors import in_one_line, is_transient
from runtime.processes.health import Heartbeat

logger = logging.getLogger(__name__)

GROUP: Final = "dead-letters"
# Seconds to wait for a letter. A stop request may wait as long.
POLL: Final = 0.5
# Seconds before storing letters is retried: the first and the longest pause.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0
# Seconds between two counts of the waiting letters.
COUNTED_EVERY: Final = 5.0


class DeadLetterCollector:
    """Read all dead-letter topics as one consumer group, and store their messages.

    Storing is idempotent, because a letter is identified by its position. So unlike BatchConsumer, this class needs no
    protection against eviction in the middle of a batch. It dead-letters nothing either: a letter that can't be stored
    stays in its topic, and the process logs the error and ends.
    """

    def __init__(self, origins: Origins, *, heartbeat: Heartbeat | None = None) -> None:
        self._origins = origins
        self._heartbeat = heartbeat or Heartbeat()
        self._count_from = 0.0
        self._consumer = Consumer(client_config(group_config(GROUP)))
        self._member = GroupMember(self._consumer, list(origins), heartbeat=self._heartbeat)

    def run(self, stop: threading.Event) -> None:
        """Collect until `stop` is set, then leave the group within 5 s. Raises StrandedError."""
        self._member.join()
        try:
            while not stop.is_set():
                self._heartbeat.beat()
                self._member.rejoin_if_forgotten(stop)
                letters = self._next()
                if letters and self._keep(letters, stop):
                    self._commit()
                self._count_waiting()
        finally:
            close_consumer(self._consumer)

    def _next(self) -> list[Incoming]:
        first = self._consumer.poll(POLL)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(CHUNK - 1, 0)]
        return [as_incoming(message) for message in messages if not is_error_report(message)]

    def _keep(self, letters: list[Incoming], stop: threading.Event) -> bool:
        """Store the letters, retrying as long as it takes; False if `stop` was set first.

        It does not poll in the meantime. If the group presumes this member dead, the letters are read again.
        """
        for pause in growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE):
            self._heartbeat.beat()
            close_old_connections()
            try:
                store_letters(letters, self._origins)
            except Exception as error:
                if not is_transient(error):
                    raise
                logger.warning("%d dead letters can't be stored yet: %s", len(letters), in_one_line(error))
            else:
                logger.info("stored %d dead letters", len(letters), extra=traces_of(letters))
                return True
            finally:
                close_old_connections()
            if stop.wait(pause):
                break
        return False

    def _count_waiting(self) -> None:
        if time.monotonic() < self._count_from:
            return
        self._count_from = time.monotonic() + COUNTED_EVERY
        waiting = math.nan
        try:
            waiting = DeadLetter.objects.filter(state=DeadLetter.State.WAITING).count()
        except Exception as error:
            if not is_transient(error):
                raise
        finally:
            DEAD_LETTERS_WAITING.set(waiting)
            close_old_connections()

    def _commit(self) -> None:
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            if is_fatal(error.args[0]):
                raise
            logger.warning("offsets were not committed, so letters will be read again: %s", error.args[0].str())
