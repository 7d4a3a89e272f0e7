"""Auth's part in `manage.py reconcile`: it sends its records to the participants, page by page, and sorts out what they
find wrong. It never looks into their tables (docs/adr/0013).
"""

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, Final, TypeVar
from uuid import UUID

from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import uuid7

from authsvc.identity import normalize_email, user_id_key
from authsvc.lights import Status
from authsvc.models import SignUp, User
from authsvc.reconcile_events import (
    Finding,
    OwnerRange,
    ReconcileAnswered,
    ReconcileRequested,
    UserRecord,
    decode_answer,
    reconcile_requested,
)
from eventbus.messages import decode_each
from eventbus.producer import EventProducer
from eventbus.replies import Replies

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Records on a page: of the longest texts they make 400 kB, and Kafka takes 1 MB.
PAGE: Final = 250
# Bytes of an answer: what Kafka takes.
ANSWER_MAX: Final = 1024 * 1024
# Pages that wait for answers at a time: enough for every partition, little enough for the embedded broker's memory.
WINDOW: Final = 8
# How often what is stuck is asked for again, at most: each time a row may get out of the way of another.
ROUNDS: Final = 5
# Seconds that an answer's way may take beyond the time that a participant has for a page.
GRACE: Final = 2.0
POLL: Final = 0.2
ACKNOWLEDGED_WITHIN: Final = 10.0


@dataclass(slots=True)
class Verification:
    """What is known of one participant."""

    # By owner: what is missing, different or conflicting. By row: what is superfluous.
    records: dict[UUID, Finding] = field(default_factory=dict)
    rows: dict[tuple[UUID | None, str], Finding] = field(default_factory=dict)
    # Records that it lacks because their sign-up has not reached it yet: the relay's work, and no fault.
    on_the_way: int = 0
    # Did not answer in time, so what is known is not all.
    is_silent: bool = False

    @property
    def findings(self) -> list[Finding]:
        return [*self.records.values(), *self.rows.values()]

    @property
    def left(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.healed]


@dataclass(slots=True)
class _OpenPage:
    owners: frozenset[UUID]
    waits_for: set[str]
    deadline: float
    found: defaultdict[str, list[Finding]] = field(default_factory=lambda: defaultdict(list))


class Reconciliation:
    """One run: `pages()` asks and listens, `result` is what came of it, by service.

    `timeout` are the seconds that a participant has for a page. One that leaves a page unanswered is not asked again.
    Raises eventbus.errors.DeliveryError when Kafka does not take a page.
    """

    def __init__(
        self, producer: EventProducer, replies: Replies, *, services: Collection[str], heal: bool, timeout: float
    ) -> None:
        self.run_id = uuid7()
        self.result = {service: Verification() for service in services}
        self._producer = producer
        self._replies = replies
        self._heal = heal
        self._timeout = timeout
        self._began = timezone.now()
        self._numbers = count(1)
        self._open: dict[int, _OpenPage] = {}
        # By service: owners without a record whose row is in the way of another's.
        self._in_the_way: defaultdict[str, set[UUID]] = defaultdict(set)

    def run(self) -> Iterator[int]:
        """Yields how many records each page had; the result is whole when it ends."""
        for records, owners in record_pages():
            self._ask(records, owners=owners)
            yield len(records)
        self._ask([], unowned=True)
        self._wait_until(0)
        for _ in range(ROUNDS):
            healed = self._healed()
            if not self._ask_again_what_is_stuck() or self._healed() == healed:
                break
        for service, verification in self.result.items():
            self._sort_out(service, verification)

    # --- Asking and listening --------------------------------------------------------------------------------------

    def _ask(self, records: Sequence[UserRecord], *, services: Collection[str] = (), **more: Any) -> None:
        self._wait_until(WINDOW - 1)
        asked = {name for name in services or self.result if not self.result[name].is_silent}
        if not asked:
            return
        now = timezone.now()
        page = ReconcileRequested(
            run_id=self.run_id,
            page=next(self._numbers),
            heal=self._heal,
            occurred_at=now,
            expires_at=now + timedelta(seconds=self._timeout),
            records=list(records),
            services=sorted(asked),
            **more,
        )
        deadline = time.monotonic() + self._timeout + GRACE
        owners = frozenset(record.owner_signup_id for record in records)
        self._open[page.page] = _OpenPage(owners, asked, deadline)
        self._producer.send_all([reconcile_requested(page)], timeout=ACKNOWLEDGED_WITHIN)

    def _wait_until(self, open_pages: int) -> None:
        """Listens until no more than so many pages wait for an answer."""
        while len(self._open) > open_pages:
            answers, unreadable = decode_each(self._replies.read(POLL), decode_answer, most=ANSWER_MAX)
            for _, error in unreadable:
                logger.warning("an answer can't be read: %s", error)
            for _, answer in answers:
                if answer.run_id == self.run_id:
                    self._take(answer)
            self._give_up_the_silent()

    def _take(self, answer: ReconcileAnswered) -> None:
        page = self._open.get(answer.page)
        if page is None or answer.service not in page.waits_for:
            return  # a repeated answer: the first counts, as only that one says what was healed
        page.found[answer.service] += answer.findings
        if not answer.more:
            self._note(self.result[answer.service], page.owners, page.found.pop(answer.service))
            self._no_longer_wait_for(answer.service, answer.page)

    def _note(self, verification: Verification, owners: frozenset[UUID], findings: Sequence[Finding]) -> None:
        """Takes the answer to a page in place of what was known about its owners."""
        for owner in owners:
            verification.records.pop(owner, None)
        candidates = []
        for finding in findings:
            if finding.kind != "superfluous" and finding.owner_signup_id:
                verification.records[finding.owner_signup_id] = finding
            elif finding.owner_signup_id in owners:
                verification.rows[finding.owner_signup_id, finding.user_id] = finding  # a second row of a known owner
            else:
                candidates.append(finding)
        for finding in without_record(candidates):
            verification.rows[finding.owner_signup_id, finding.user_id] = finding

    def _give_up_the_silent(self) -> None:
        now = time.monotonic()
        late = {name for page in self._open.values() if page.deadline < now for name in page.waits_for}
        for service in late:
            self.result[service].is_silent = True
            for number in list(self._open):
                self._no_longer_wait_for(service, number)

    def _no_longer_wait_for(self, service: str, number: int) -> None:
        page = self._open[number]
        page.waits_for.discard(service)
        if not page.waits_for:
            del self._open[number]

    # --- Sorting out -----------------------------------------------------------------------------------------------

    def _healed(self) -> int:
        return sum(finding.healed for each in self.result.values() for finding in each.findings)

    def _ask_again_what_is_stuck(self) -> bool:
        """Asks again about records in whose way is a row that auth's sign-ups made: one whose record is gone, which
        only auth can tell, or one that has been corrected since. Returns whether there was any."""
        was_asked = False
        for service, verification in self.result.items():
            stuck = {
                owner: {row.owner_signup_id for row in finding.held_by if row.owner_signup_id}
                for owner, finding in verification.records.items()
                if finding.kind == "conflicting"
            }
            stuck = {owner: holders for owner, holders in stuck.items() if holders}
            for owners in in_chunks(list(stuck)):
                holders = set().union(*(stuck[owner] for owner in owners))
                gone = holders - known_owners(holders)
                self._in_the_way[service] |= gone
                users = User.objects.filter(owner_signup_id__in=owners)
                self._ask([UserRecord.of(user) for user in users], services=[service], gone=sorted(gone))
                was_asked = True
        self._wait_until(0)
        return was_asked

    def _sort_out(self, service: str, verification: Verification) -> None:
        # Each row is reported once: what is in the way of a record stands there.
        in_the_way = self._in_the_way[service]
        verification.rows = {key: finding for key, finding in verification.rows.items() if key[0] not in in_the_way}
        missing = [
            owner for owner, finding in verification.records.items() if finding.kind == "missing" and not finding.healed
        ]
        for owners in in_chunks(missing):
            for signup in SignUp.objects.filter(id__in=owners, stalled_at=None).only("id", "lights"):
                light = signup.state.lights.get(service)
                if light and (light.status is Status.PENDING or (light.decided_at and light.decided_at > self._began)):
                    del verification.records[signup.id]
                    verification.on_the_way += 1


def record_pages() -> Iterator[tuple[list[UserRecord], OwnerRange]]:
    """Auth's records in the order of their owners, each page with the range of owners that it covers.

    The ranges leave nothing out: a participant's row in one of them whose owner is not on the page is superfluous.
    """
    users = User.objects.order_by("owner_signup_id")
    after: UUID | None = None
    while True:
        page = list((users if after is None else users.filter(owner_signup_id__gt=after))[:PAGE])
        up_to = page[-1].owner_signup_id if len(page) == PAGE else None
        yield [UserRecord.of(user) for user in page], OwnerRange(after, up_to)
        if up_to is None:
            return
        after = up_to


def without_record(candidates: Sequence[Finding]) -> Iterator[Finding]:
    """Those of the rows that a participant takes for superfluous that auth has no record of now either: a user who came
    after the page was read has one, and a row that an administrator made may be in the way of one, which is said there.
    """
    for chunk in in_chunks(candidates):
        owners = known_owners({finding.owner_signup_id for finding in chunk if finding.owner_signup_id})
        unowned = [finding for finding in chunk if finding.owner_signup_id is None]
        user_ids = {user_id_key(finding.user_id) for finding in unowned}
        emails = {normalize_email(finding.email) for finding in unowned}
        held = User.objects.filter(Q(user_id_key__in=user_ids) | Q(email__in=emails))
        texts = {text for pair in held.values_list("user_id_key", "email") for text in pair}
        for finding in chunk:
            if finding.owner_signup_id is None:
                is_known = not texts.isdisjoint((user_id_key(finding.user_id), normalize_email(finding.email)))
            else:
                is_known = finding.owner_signup_id in owners
            if not is_known:
                yield finding


def known_owners(owners: Collection[UUID]) -> set[UUID]:
    """Those of the sign-ups that own a record of auth's."""
    return set(User.objects.filter(owner_signup_id__in=owners).values_list("owner_signup_id", flat=True))


def in_chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, PAGE at a time."""
    return (items[start : start + PAGE] for start in range(0, len(items), PAGE))
