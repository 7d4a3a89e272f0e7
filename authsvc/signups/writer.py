"""Group commit: one writer saves all sign-ups that queued up during its previous transaction in the next one."""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.db import close_old_connections, connections

from authsvc.lights import AUTH, DecidedLights, Kind, decided_lights_in
from authsvc.metrics import REPEATED, count_verdicts
from authsvc.signups.events import new_user_requested
from authsvc.signups.hash_pool import HashPool
from authsvc.signups.projection import CONNECTIONS, AsyncProjection
from authsvc.signups.registration import KeyTakenError, NewSignUp, Registration, register_new_users, register_users
from authsvc.signups.traffic_counts import Counts, counts_of
from eventbus.producer import EventProducer
from runtime.errors import CrossedError, is_transient
from runtime.processes.bounded_pool import QueueFullError
from runtime.tracing import IDS_OF_A_LINE, log_traces

logger = logging.getLogger(__name__)
BATCH_MAX: Final = 500
# Length limit of the queue: a few batches, about a second of work for a healthy database.
WAITING_MAX: Final = 2000
# Seconds that a sign-up waits for its commit. Nothing else ends the wait if a frozen database keeps connections open.
SAVED_WITHIN: Final = 3.0
# Batches whose counts may be on their way to Redis: one per connection. More would only pile up if Redis hangs.
COUNTING_MAX: Final = CONNECTIONS
# Seconds to deliver the last events to Kafka at shutdown; the relay publishes the remaining ones again.
LEAVES_WITHIN: Final = 1.0

_Waiting = tuple[NewSignUp, asyncio.Future[Registration]]
# None for a sign-up that the optimistic insert left out.
_Outcome = Registration | KeyTakenError | None
_Register = Callable[[Sequence[NewSignUp]], Sequence[_Outcome]]


class SignUpWriter:
    """Saves sign-ups in batches and publishes their events right after the commit (docs/adr/0008).

    An event that Kafka doesn't accept is not lost: its sign-up stays due until every service has answered.
    """

    def __init__(self, producer: EventProducer, projection: AsyncProjection, hashes: HashPool) -> None:
        self._producer = producer
        self._projection = projection
        # Decides when the next batch should start.
        self._hashes = hashes
        # One thread: one connection and one transaction at a time. Sign-ups that arrive meanwhile form the next batch.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="signup-writer")
        self._queue: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self._counting: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        return len(self._queue) >= WAITING_MAX

    async def register(self, new: NewSignUp) -> Registration:
        """Save the sign-up and return once it is committed.

        Raise KeyTakenError, the database's error, or QueueFullError if too many sign-ups wait. Raise TimeoutError after
        SAVED_WITHIN seconds; if the sign-up's batch has not started by then, the sign-up is not saved.
        """
        if self.is_full:
            raise QueueFullError
        future: asyncio.Future[Registration] = asyncio.get_running_loop().create_future()
        waiting = (new, future)
        self._queue.append(waiting)
        self._hashes.note_queued()
        if self._running is None:
            # Use a fresh context: the request's context must not outlive the request.
            self._running = asyncio.create_task(self._drain(), context=contextvars.Context())
        try:
            async with asyncio.timeout(SAVED_WITHIN):
                # A client that disconnects cancels only its wait, not its sign-up.
                return await asyncio.shield(future)
        except TimeoutError:
            if waiting in self._queue:
                self._queue.remove(waiting)
            raise

    async def confirm(self, register: Callable[[], Registration]) -> Registration:
        """Run `register`, which saves one confirmed sign-up, and publish and count that sign-up.

        Raises what `register` raises, and TimeoutError after SAVED_WITHIN seconds: a registration that has not begun by
        then does not run, and its link stays valid.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SAVED_WITHIN):
            saved, counts = await loop.run_in_executor(self._thread, self._commit, lambda _: [register()], [])
        self._count(counts)
        [registration] = [each for each in saved if isinstance(each, Registration)]
        return registration

    async def close(self) -> None:
        """Return when every accepted sign-up is saved and counted; then stop the thread and close the producer."""
        while begun := {*self._counting, *({self._running} if self._running else ())}:
            await asyncio.wait(begun)
        self._thread.submit(connections.close_all)
        self._thread.shutdown()
        await asyncio.to_thread(self._producer.close, LEAVES_WITHIN)

    async def _drain(self) -> None:
        try:
            while self._queue:
                await self._hashes.wait_for_batch(lambda: len(self._queue))
                batch, self._queue = self._queue[:BATCH_MAX], self._queue[BATCH_MAX:]
                await self._write(batch)
        finally:
            self._running = None

    async def _write(self, batch: list[_Waiting]) -> None:
        if known := await self._save(register_new_users, batch):
            await self._save(register_users, known)

    async def _save(self, register: _Register, batch: list[_Waiting]) -> list[_Waiting]:
        """Save the batch in one transaction and resolve its futures. Return the sign-ups that `register` left out."""
        loop = asyncio.get_running_loop()
        try:
            outcomes, counts = await loop.run_in_executor(
                self._thread, self._commit, register, [new for new, _ in batch]
            )
        except Exception as error:
            if len(batch) > 1 and (isinstance(error, CrossedError) or not is_transient(error)):
                # One sign-up may be at fault: retry them one by one, so that the others don't fail with it.
                return [left for waiting in batch for left in await self._save(register, [waiting])]
            ids = [str(new.signup_id) for new, _ in batch[:IDS_OF_A_LINE]]
            logger.exception("could not save a batch of %d sign-ups", len(batch), extra={"signup_id": ids})
            for waiting in batch:
                _fail(waiting, error)
            return []
        # No copy to Redis yet: until a participant answers, states are read from the database.
        self._count(counts)
        left_out = []
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                left_out.append(waiting)
            elif isinstance(outcome, KeyTakenError):
                _fail(waiting, outcome)
            else:
                waiting[1].set_result(outcome)
        return left_out

    def _count(self, counts: Counts) -> None:
        # Not awaited: no client waits for traffic counts.
        if counts and len(self._counting) < COUNTING_MAX:
            counting = asyncio.create_task(self._projection.count(counts))
            self._counting.add(counting)
            counting.add_done_callback(self._counting.discard)

    def _commit(self, register: _Register, batch: Sequence[NewSignUp]) -> tuple[Sequence[_Outcome], Counts]:
        try:
            outcomes = register(batch)
        except Exception:
            close_old_connections()
            raise
        saved = [each for each in outcomes if isinstance(each, Registration)]
        # Encode all events first: Kafka's client sends immediately, so a tight loop puts them into one request.
        events = [
            new_user_requested(each.record, signup_id=each.signup.id, attempt=1)
            for each in saved
            if each.record is not None
        ]
        for event in events:
            self._producer.send(event)
        decisions = decided_lights_in(each.state for each in saved if each.is_new)
        _report_registrations(saved, decisions)
        return outcomes, counts_of(decisions, begun=len(events))


def _fail(waiting: _Waiting, error: Exception) -> None:
    _, future = waiting
    future.set_exception(error)
    # The waiter may be gone, and asyncio warns about exceptions that are never retrieved.
    future.exception()


def _report_registrations(registrations: Sequence[Registration], decisions: DecidedLights) -> None:
    repeated = [each.signup.id for each in registrations if not each.is_new]
    count_verdicts(decisions)
    REPEATED.inc(len(repeated))
    log_traces(logger, "sign-ups accepted: %d", decisions.lights.get((AUTH, "SUCCESS", Kind.SIGNUP), ()))
    log_traces(logger, "sign-ups refused as duplicates: %d", decisions.lights.get((AUTH, "FAIL", Kind.SIGNUP), ()))
    log_traces(logger, "requests that repeated a sign-up: %d", repeated)
