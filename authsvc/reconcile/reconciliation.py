"""Auth's side of `manage.py reconcile`: send auth's records to the participants page by page, and evaluate their
findings. Auth never reads the participants' tables (docs/adr/0013).
"""

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import uuid7

from authsvc.lights import Kind, Status
from authsvc.models import EventTransaction, User, known_owners, removed_owners
from authsvc.reconcile.events import (
    Finding,
    FindingKind,
    ReconcileAnswered,
    ReconcileRequested,
    UserRecord,
    decode_answer,
    reconcile_requested,
)
from authsvc.reconcile.records import PAGE, in_chunks, record_pages, without_record
from eventbus.messages import decode_each
from eventbus.producer import EventProducer
from eventbus.replies import Replies

logger = logging.getLogger(__name__)

# Maximum size of an answer in bytes: Kafka's limit.
ANSWER_MAX: Final = 1024 * 1024
# Maximum number of unanswered pages: enough to use every partition, few enough for the embedded broker's memory.
WINDOW: Final = 8
# Number of stuck records that share a follow-up page, and the maximum number of records on it: the page grows by the
# owners of the conflicting rows, then by the owners of the rows that conflict with those, until it stops growing.
STUCK: Final = 50
QUESTION_MAX: Final = PAGE
# Seconds of delivery time allowed for an answer, on top of a participant's time for a page.
GRACE: Final = 2.0
POLL: Final = 0.2
ACKNOWLEDGED_WITHIN: Final = 10.0


@dataclass(slots=True)
class Verification:
    """The result for one participant, in numbers; the findings themselves are reported as they arrive."""

    counts: Counter[tuple[FindingKind, bool]] = field(default_factory=Counter)  # by (kind, healed)
    # Discrepancies whose sign-up, change or removal is still being processed: not a fault, since the relay delivers it.
    on_the_way: int = 0
    # Conflicts among more sign-ups' rows than fit on one page.
    entangled: int = 0
    # Did not answer in time, so the result is incomplete.
    is_silent: bool = False

    def left(self, *kinds: FindingKind) -> int:
        """Return the number of findings of these kinds that were not healed."""
        return sum(self.counts[kind, False] for kind in kinds)

    @property
    def healed(self) -> int:
        return sum(number for (_, is_healed), number in self.counts.items() if is_healed)


@dataclass(frozen=True, slots=True)
class _Question:
    """A follow-up page about records that are stuck at one service: its last findings about them, the owners whose
    records belong on the page, and the owners that are `gone` from auth."""

    service: str
    known: dict[UUID, Finding]
    owners: frozenset[UUID]
    gone: frozenset[UUID] = frozenset()

    def joined(self, other: "_Question") -> "_Question":
        known = self.known | other.known
        return _Question(self.service, known, self.owners | other.owners, self.gone | other.gone)


@dataclass(slots=True)
class _OpenPage:
    """A page that waits for answers: a regular page of records, or a question's page."""

    owners: frozenset[UUID]
    question: _Question | None
    waits_for: set[str]
    deadline: float
    # By service: stuck records, which conflict with rows of other sign-ups, and the owners already reported.
    stuck: defaultdict[str, dict[UUID, Finding]] = field(default_factory=lambda: defaultdict(dict))
    reported: defaultdict[str, set[UUID]] = field(default_factory=lambda: defaultdict(set))

    def is_about(self, owner: UUID | None) -> bool:
        """Whether it is this page that reports findings about the owner."""
        return owner in (self.question.known if self.question else self.owners)


class Reconciliation:
    """One run: run() sends pages and receives answers; `result` has the counts by service.

    Each finding is passed to `report`, with its service, as soon as it is final, so that memory use doesn't grow with
    their number. `timeout` is a participant's time for a page, in seconds. A participant that leaves a page unanswered
    is not asked again. `repair` corrects auth's own record, which a newer or revived finding calls into question, and
    returns whether it did; None leaves auth as it is. Raise eventbus.errors.DeliveryError if Kafka doesn't accept a
    page.
    """

    def __init__(
        self,
        producer: EventProducer,
        replies: Replies,
        *,
        services: Collection[str],
        heal: bool,
        timeout: float,
        report: Callable[[str, Finding], None],
        repair: Callable[[Finding], bool] | None = None,
    ) -> None:
        self.run_id = uuid7()
        self.result = {service: Verification() for service in services}
        self._producer = producer
        self._replies = replies
        self._heal = heal
        self._timeout = timeout
        self._report_finding = report
        self._repair = repair
        self._began = timezone.now()
        self._numbers = count(1)
        self._open: dict[int, _OpenPage] = {}
        self._questions: deque[_Question] = deque()

    def run(self) -> Iterator[int]:
        """Yield the number of records of each page. The result is complete when the iterator ends."""
        for records, removed, owners in record_pages():
            self._ask(records, removed=removed, owners=owners)
            # Ask immediately, so that at most one window of stuck records accumulates.
            self._ask_questions()
            yield len(records)
        self._ask([], unowned=True)
        while self._open or self._questions:
            self._ask_questions()
            self._wait_until(max(len(self._open) - 1, 0))

    # --- Asking and listening --------------------------------------------------------------------------------------

    def _ask(self, records: Sequence[UserRecord], *, question: _Question | None = None, **more: Any) -> None:
        self._wait_until(WINDOW - 1)
        services = [question.service] if question else self.result
        asked = {name for name in services if not self.result[name].is_silent}
        if not asked:
            self._report_unanswered(question)
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
        owners = frozenset(record.owner_signup_id for record in records)
        deadline = time.monotonic() + self._timeout + GRACE
        self._open[page.page] = _OpenPage(owners, question, asked, deadline)
        self._producer.send_all([reconcile_requested(page)], timeout=ACKNOWLEDGED_WITHIN)

    def _ask_questions(self) -> None:
        while self._questions:
            question = self._joined(self._questions.popleft())
            users = User.objects.filter(owner_signup_id__in=question.owners)
            removed = removed_owners(question.gone)
            self._ask(
                [UserRecord.of(user) for user in users],
                question=question,
                gone=sorted(question.gone - removed),
                removed=sorted(removed),
            )

    def _joined(self, question: _Question) -> _Question:
        """Return the question merged with queued ones that share a record with it. Otherwise each record of a cycle of
        conflicts would collect the whole cycle on a separate page."""
        for other in list(self._questions):
            owners = question.owners | other.owners
            if other.service == question.service and question.owners & other.owners and len(owners) <= QUESTION_MAX:
                self._questions.remove(other)
                question = question.joined(other)
        return question

    def _wait_until(self, open_pages: int) -> None:
        """Receive answers until at most `open_pages` pages are unanswered."""
        while len(self._open) > open_pages:
            answers, unreadable = decode_each(self._replies.read(POLL), decode_answer, most=ANSWER_MAX)
            for _, error in unreadable:
                logger.warning("an answer can't be decoded: %s", error)
            for _, answer in answers:
                if answer.run_id == self.run_id:
                    self._take(answer)
            self._give_up_on_silent()

    def _take(self, answer: ReconcileAnswered) -> None:
        page = self._open.get(answer.page)
        if page is None or answer.service not in page.waits_for:
            return  # a redelivered page's answer: only the first one says what was healed
        self._sort_out(answer.service, page, answer.findings)
        if not answer.more:
            self._ask_again_about_stuck(answer.service, page)
            self._no_longer_wait_for(answer.service, answer.page)

    def _give_up_on_silent(self) -> None:
        now = time.monotonic()
        late = {name for page in self._open.values() if page.deadline < now for name in page.waits_for}
        for service in late:
            self.result[service].is_silent = True
            for number, page in list(self._open.items()):
                if service in page.waits_for:
                    self._report_unanswered(page.question)
                    self._no_longer_wait_for(service, number)

    def _report_unanswered(self, question: _Question | None) -> None:
        if question:
            self._report(question.service, question.known.values())

    def _no_longer_wait_for(self, service: str, number: int) -> None:
        page = self._open[number]
        page.waits_for.discard(service)
        if not page.waits_for:
            del self._open[number]

    # --- Sorting out -----------------------------------------------------------------------------------------------

    def _sort_out(self, service: str, page: _OpenPage, findings: Sequence[Finding]) -> None:
        """Report the final findings in a part of an answer.

        A healed finding is reported by the page that healed it, any other finding by the page that is about its owner.
        """
        final, left, rows = [], {}, []
        for finding in findings:
            owner = finding.owner_signup_id
            if finding.kind == "superfluous":
                if owner in page.owners:
                    # A second row of a known owner. A question's page would repeat the regular page's finding.
                    final += [] if page.question else [finding]
                else:
                    rows.append(finding)
            elif owner is None or owner in page.reported[service]:
                continue  # already reported
            elif any(row.owner_signup_id for row in finding.held_by):
                page.stuck[service][owner] = finding
            elif finding.healed or page.is_about(owner) or (finding.kind == "removed" and not page.question):
                page.reported[service].add(owner)
                if finding.healed or finding.kind == "conflicting":
                    final.append(finding)
                else:
                    left[owner] = finding
        final += self._about_auth(left)
        on_the_way = self._on_the_way(service, left)
        self.result[service].on_the_way += len(on_the_way)
        known = known_owners(left)
        for owner, finding in left.items():
            # A record that was removed after its page was read is no longer missing or different.
            if owner not in on_the_way and (owner in known or finding.kind == "removed"):
                final.append(finding)
        self._report(service, [*final, *without_record(rows)])

    def _about_auth(self, left: dict[UUID, Finding]) -> Iterator[Finding]:
        """Remove from `left` the findings that call auth's own records into question. Yield those that still hold now:
        a record may have been changed or removed after its page was read."""
        owners = [owner for owner, finding in left.items() if finding.kind in ("newer", "revived")]
        users = User.objects.filter(owner_signup_id__in=owners)
        versions = dict(users.values_list("owner_signup_id", "version"))
        for owner in owners:
            finding = left.pop(owner)
            if owner in versions and (finding.kind == "revived" or versions[owner] < finding.version):
                is_repaired = self._repair is not None and self._repair(finding)
                yield msgspec.structs.replace(finding, healed=is_repaired)

    def _ask_again_about_stuck(self, service: str, page: _OpenPage) -> None:
        """Ask again about stuck records together with the owners of the rows that conflict with them: a participant
        can heal a conflict whose records are all on one page (docs/adr/0013). Report those that still don't heal when
        the page stops growing."""
        stuck = page.stuck.pop(service, {})
        about = {owner: finding for owner, finding in stuck.items() if page.is_about(owner)}
        if page.question is None:
            for owners in in_chunks(list(about), STUCK):
                known = {owner: about[owner] for owner in owners}
                self._questions.append(self._grown(_Question(service, known, frozenset(owners)), known))
            return
        question = replace(page.question, known=about)
        grown = self._grown(question, stuck)
        if about and (grown.owners, grown.gone) != (question.owners, question.gone):
            self._questions.append(grown)
            return
        if _owners_in_the_way(stuck) - grown.owners - grown.gone:
            self.result[service].entangled += len(about)
        self._report(service, about.values())

    def _grown(self, question: _Question, stuck: dict[UUID, Finding]) -> _Question:
        """Return the question plus the owners of the rows that conflict with `stuck`, as many as fit on a page."""
        new = _owners_in_the_way(stuck) - question.owners - question.gone
        known = known_owners(new)
        room = QUESTION_MAX - len(question.owners)
        return replace(question, owners=question.owners | set(sorted(known)[:room]), gone=question.gone | (new - known))

    def _on_the_way(self, service: str, found: Mapping[UUID, Finding]) -> set[UUID]:
        """Return the owners of those findings that a sign-up, change or removal will put right which the service has
        yet to process, or has processed since the run began. A sign-up only adds a missing row."""
        missing = [owner for owner, finding in found.items() if finding.kind == "missing"]
        about = Q(id__in=missing) | Q(owner_signup_id__in=found, kind__in=(Kind.CHANGE, Kind.REMOVAL))
        on_the_way = set()
        for row in EventTransaction.objects.filter(about, stalled_at=None):
            light = row.state.lights.get(service)
            if light and (light.status is Status.PENDING or (light.decided_at and light.decided_at > self._began)):
                on_the_way.add(row.owner_signup_id)
        return on_the_way

    def _report(self, service: str, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.result[service].counts[finding.kind, finding.healed] += 1
            self._report_finding(service, finding)


def _owners_in_the_way(stuck: dict[UUID, Finding]) -> set[UUID]:
    return {row.owner_signup_id for finding in stuck.values() for row in finding.held_by if row.owner_signup_id}
