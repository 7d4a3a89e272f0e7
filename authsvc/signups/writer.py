"""Group commit: one writer takes all the sign-ups that queued while its last transaction was under way."""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.db import close_old_connections, connections

from authsvc.lights import AUTH, Decisions, decisions_in
from authsvc.metrics import REPEATED, count_verdicts
from authsvc.signups.events import new_user_requested
from authsvc.signups.hash_pool import HashPool
from authsvc.signups.projection import CONNECTIONS, AsyncProjection
from authsvc.signups.registration import KeyTakenError, NewSignUp, Registration, register_strangers, register_users
from authsvc.signups.traffic_counts import Counts, counts_of
from eventbus.producer import EventProducer
from runtime.errors import CrossedError, is_transient
from runtime.processes.bounded_pool import QueueFullError
from runtime.tracing import IDS_OF_A_LINE, log_traces

logger = logging.getLogger(__name__)
BATCH_MAX: Final = 500
# Sign-ups that may wait: some batches, about a second of a database that answers.
WAITING_MAX: Final = 2000
# Seconds that a sign-up waits for its commit. A frozen database breaks no connection, so nothing else ends the wait.
SAVED_WITHIN: Final = 3.0
# Batches that are being counted: as many as there are connections. Where Redis hangs, more would only pile up.
COUNTING_MAX: Final = CONNECTIONS
# Seconds that the last events have to get to Kafka; those of the others are due again.
LEAVES_WITHIN: Final = 1.0

_Waiting = tuple[NewSignUp, asyncio.Future[Registration]]
# None where a sign-up was left out.
_Outcome = Registration | KeyTakenError | None
_Register = Callable[[Sequence[NewSignUp]], Sequence[_Outcome]]


class SignUpWriter:
    """Saves sign-ups in batches and publishes their events right after the commit (docs/adr/0008).

    An event that can't be handed over to Kafka is not lost: its sign-up is due until every service has answered.
    """

    def __init__(self, producer: EventProducer, projection: AsyncProjection, hashes: HashPool) -> None:
        self._producer = producer
        self._projection = projection
        # It says when the next batch should begin.
        self._hashes = hashes
        # One thread, hence one connection and one transaction at a time: what arrives meanwhile is the next batch.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="signup-writer")
        self._queue: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self._counting: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        return len(self._queue) >= WAITING_MAX

    async def register(self, new: NewSignUp) -> Registration:
        """Returns when the sign-up is committed. Raises KeyTakenError, what the database raised, QueueFullError when
        too many wait.

        Raises TimeoutError after SAVED_WITHIN seconds: a sign-up whose batch has not begun by then is not saved.
        """
        if self.is_full:
            raise QueueFullError
        future: asyncio.Future[Registration] = asyncio.get_running_loop().create_future()
        waiting = (new, future)
        self._queue.append(waiting)
        self._hashes.note_queued()
        if self._running is None:
            # A context of its own: the request's ends with the request.
            self._running = asyncio.create_task(self._drain(), context=contextvars.Context())
        try:
            async with asyncio.timeout(SAVED_WITHIN):
                # A client that leaves cancels its wait, not its sign-up.
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
        """Returns when all that was taken is saved and told; ends the thread and the producer."""
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
        if known := await self._save(register_strangers, batch):
            await self._save(register_users, known)

    async def _save(self, register: _Register, batch: list[_Waiting]) -> list[_Waiting]:
        """Has these saved in one transaction, and tells who waits; those that were left out."""
        loop = asyncio.get_running_loop()
        try:
            outcomes, counts = await loop.run_in_executor(
                self._thread, self._commit, register, [new for new, _ in batch]
            )
        except Exception as error:
            if len(batch) > 1 and (isinstance(error, CrossedError) or not is_transient(error)):
                # One of them is at fault; the others must not fail with it.
                return [left for waiting in batch for left in await self._save(register, [waiting])]
            ids = [str(new.signup_id) for new, _ in batch[:IDS_OF_A_LINE]]
            logger.exception("a batch of %d sign-ups was not saved", len(batch), extra={"signup_id": ids})
            for waiting in batch:
                _fail(waiting, error)
            return []
        # Who asks for a state before a participant has answered gets that of the row, so that none need be copied yet.
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
        # Not awaited: nobody waits for figures.
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
        # Made first, so that Kafka's client sends them together: it waits for nothing.
        events = [
            new_user_requested(each.record, signup_id=each.signup.id, attempt=1)
            for each in saved
            if each.record is not None
        ]
        for event in events:
            self._producer.send(event)
        decisions = decisions_in(each.state for each in saved if each.is_new)
        _tell(saved, decisions)
        return outcomes, counts_of(decisions, begun=len(events))


def _fail(waiting: _Waiting, error: Exception) -> None:
    _, future = waiting
    future.set_exception(error)
    # Nobody may be waiting any more, and asyncio complains of an error that nobody has read.
    future.exception()


def _tell(registrations: Sequence[Registration], decisions: Decisions) -> None:
    repeated = [each.signup.id for each in registrations if not each.is_new]
    count_verdicts(decisions)
    REPEATED.inc(len(repeated))
    log_traces(logger, "sign-ups taken: %d", decisions.lights.get((AUTH, "SUCCESS"), ()))
    log_traces(logger, "sign-ups refused as duplicates: %d", decisions.lights.get((AUTH, "FAIL"), ()))
    log_traces(logger, "requests that joined their sign-ups: %d", repeated)
