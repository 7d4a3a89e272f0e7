"""Auth's part in `manage.py reconcile`: it sends its records to the participants, page by page, and sorts out what they
find wrong. It never looks into their tables (docs/adr/0013).
"""

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any, Final, TypeVar
from uuid import UUID

from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import uuid7

from authsvc.lights import Status
from authsvc.models import SignUp, User
from authsvc.reconcile.events import (
    Finding,
    Kind,
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
from runtime.equality import normalize_email, user_id_key

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Records on a page: of the longest texts they make 400 kB, and Kafka takes 1 MB.
PAGE: Final = 250
# Bytes of an answer: what Kafka takes.
ANSWER_MAX: Final = 1024 * 1024
# Pages that wait for answers at a time: enough for every partition, little enough for the embedded broker's memory.
WINDOW: Final = 8
# Stuck records that are asked about again together, and the most records on such a page: it grows by the owners of the
# rows that are in the way, then by the owners of those in their way, until it grows no more.
STUCK: Final = 50
QUESTION_MAX: Final = PAGE
# Seconds that an answer's way may take beyond the time that a participant has for a page.
GRACE: Final = 2.0
POLL: Final = 0.2
ACKNOWLEDGED_WITHIN: Final = 10.0


@dataclass(slots=True)
class Verification:
    """What is known of one participant, in numbers: the findings themselves are reported as they come."""

    counts: Counter[tuple[Kind, bool]] = field(default_factory=Counter)  # by kind, and whether it was healed
    # Records that it lacks because their sign-up has not reached it yet: the relay's work, and no fault.
    on_the_way: int = 0
    # Conflicts between rows that auth's sign-ups made, which are too many for one page.
    entangled: int = 0
    # Did not answer in time, so what is known is not all.
    is_silent: bool = False

    def left(self, *kinds: Kind) -> int:
        """How many findings of these kinds were not healed."""
        return sum(self.counts[kind, False] for kind in kinds)

    @property
    def healed(self) -> int:
        return sum(number for (_, is_healed), number in self.counts.items() if is_healed)


@dataclass(frozen=True, slots=True)
class _Question:
    """Records of one service that are stuck, with what it last said about them, and the owners whose records go on the
    page with them, or are `gone`."""

    service: str
    known: dict[UUID, Finding]
    owners: frozenset[UUID]
    gone: frozenset[UUID] = frozenset()

    def joined(self, other: "_Question") -> "_Question":
        known = self.known | other.known
        return _Question(self.service, known, self.owners | other.owners, self.gone | other.gone)


@dataclass(slots=True)
class _OpenPage:
    """A page that waits for answers: one of all records, or the one of a question."""

    owners: frozenset[UUID]
    question: _Question | None
    waits_for: set[str]
    deadline: float
    # By service: records in whose way are rows that auth's sign-ups made, and the owners whose findings are counted.
    stuck: defaultdict[str, dict[UUID, Finding]] = field(default_factory=lambda: defaultdict(dict))
    reported: defaultdict[str, set[UUID]] = field(default_factory=lambda: defaultdict(set))

    def is_about(self, owner: UUID | None) -> bool:
        """Whether this page's findings about the owner count, unless another page reports them."""
        return owner in (self.question.known if self.question else self.owners)


class Reconciliation:
    """One run: `run()` asks and listens, `result` counts what came of it, by service.

    Each finding goes to `report`, with its service, as soon as it is final, so memory does not grow with their number.
    `timeout` are the seconds that a participant has for a page. One that leaves a page unanswered is not asked again.
    Raises eventbus.errors.DeliveryError when Kafka does not take a page.
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
    ) -> None:
        self.run_id = uuid7()
        self.result = {service: Verification() for service in services}
        self._producer = producer
        self._replies = replies
        self._heal = heal
        self._timeout = timeout
        self._report_finding = report
        self._began = timezone.now()
        self._numbers = count(1)
        self._open: dict[int, _OpenPage] = {}
        self._questions: deque[_Question] = deque()

    def run(self) -> Iterator[int]:
        """Yields how many records each page had; the result is whole when it ends."""
        for records, owners in record_pages():
            self._ask(records, owners=owners)
            # At once, so that no more than a window of stuck records waits.
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
            gone=sorted(question.gone) if question else [],
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
            self._ask([UserRecord.of(user) for user in users], question=question)

    def _joined(self, question: _Question) -> _Question:
        """The question with those that wait and share a record with it. Otherwise each of the records of a circle would
        gather the whole circle on a page of its own."""
        for other in list(self._questions):
            owners = question.owners | other.owners
            if other.service == question.service and question.owners & other.owners and len(owners) <= QUESTION_MAX:
                self._questions.remove(other)
                question = question.joined(other)
        return question

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
        self._sort_out(answer.service, page, answer.findings)
        if not answer.more:
            self._question_what_is_stuck(answer.service, page)
            self._no_longer_wait_for(answer.service, answer.page)

    def _give_up_the_silent(self) -> None:
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
        """Reports what is final of a part of an answer.

        A healed finding is said once, by whichever page healed it. Another counts on the page that is about it.
        """
        final, missing, rows = [], {}, []
        for finding in findings:
            owner = finding.owner_signup_id
            if finding.kind == "superfluous":
                if owner in page.owners:
                    # A second row of a known owner. A question's page repeats what the first has said.
                    final += [] if page.question else [finding]
                else:
                    rows.append(finding)
            elif owner is None or owner in page.reported[service]:
                continue  # a repeated part of an answer
            elif any(row.owner_signup_id for row in finding.held_by):
                page.stuck[service][owner] = finding
            elif finding.healed or page.is_about(owner):
                page.reported[service].add(owner)
                if finding.kind == "missing" and not finding.healed:
                    missing[owner] = finding
                else:
                    final.append(finding)
        on_the_way = self._on_the_way(service, missing)
        self.result[service].on_the_way += len(on_the_way)
        final += [finding for owner, finding in missing.items() if owner not in on_the_way]
        self._report(service, [*final, *without_record(rows)])

    def _question_what_is_stuck(self, service: str, page: _OpenPage) -> None:
        """Asks again about the records that are stuck, together with those that have the rows in their way: a
        participant heals what is whole on one page (docs/adr/0013). What grows no more is reported."""
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
        """The question with those whose rows are in the way of `stuck`, as many as a page takes."""
        new = _owners_in_the_way(stuck) - question.owners - question.gone
        known = known_owners(new)
        room = QUESTION_MAX - len(question.owners)
        return replace(question, owners=question.owners | set(sorted(known)[:room]), gone=question.gone | (new - known))

    def _on_the_way(self, service: str, missing: Collection[UUID]) -> set[UUID]:
        """Those of the missing records whose sign-up is still on its way to the service."""
        on_the_way = set()
        for signup in SignUp.objects.filter(id__in=missing, stalled_at=None).only("id", "lights"):
            light = signup.state.lights.get(service)
            if light and (light.status is Status.PENDING or (light.decided_at and light.decided_at > self._began)):
                on_the_way.add(signup.id)
        return on_the_way

    def _report(self, service: str, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.result[service].counts[finding.kind, finding.healed] += 1
            self._report_finding(service, finding)


def _owners_in_the_way(stuck: dict[UUID, Finding]) -> set[UUID]:
    return {row.owner_signup_id for finding in stuck.values() for row in finding.held_by if row.owner_signup_id}


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
    after the page was read has one, and a row in the way of a record is reported with that record.
    """
    for chunk in in_chunks(candidates):
        owners = known_owners({finding.owner_signup_id for finding in chunk if finding.owner_signup_id})
        user_ids = {user_id_key(finding.user_id) for finding in chunk}
        emails = {normalize_email(finding.email) for finding in chunk}
        held = User.objects.filter(Q(user_id_key__in=user_ids) | Q(email__in=emails))
        texts = {text for pair in held.values_list("user_id_key", "email") for text in pair}
        for finding in chunk:
            is_in_the_way = not texts.isdisjoint((user_id_key(finding.user_id), normalize_email(finding.email)))
            if finding.owner_signup_id not in owners and not is_in_the_way:
                yield finding


def known_owners(owners: Collection[UUID]) -> set[UUID]:
    """Those of the sign-ups that own a record of auth's."""
    return set(User.objects.filter(owner_signup_id__in=owners).values_list("owner_signup_id", flat=True))


def in_chunks(items: Sequence[T], size: int = PAGE) -> Iterator[Sequence[T]]:
    """The items, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
