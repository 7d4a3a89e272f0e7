"""Auth's side of reconcile, rule by rule, with fake participants that answer at once, without a broker, and with a fake
clock. test_reconcile.py runs the whole command on a broker."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from authsvc.lights import Kind, Status, Verdict
from authsvc.management.commands.reconcile import Examples, as_text
from authsvc.models import EventTransaction, RemovedAccount, SignUp, User, known_owners, removed_owners
from authsvc.reconcile import reconciliation, records
from authsvc.reconcile.events import RECONCILE_REQUESTED, Finding
from authsvc.reconcile.reconciliation import (
    ACKNOWLEDGED_WITHIN,
    ANSWER_MAX,
    GRACE,
    POLL,
    WINDOW,
    Reconciliation,
    Verification,
)
from authsvc.reconcile.records import in_chunks, record_pages, without_record
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from chatsvc.models import ChatUser
from eventbus.messages import Incoming, Outgoing
from eventbus.subscriptions import subscriptions_of
from tests.signups import complete, save_signup
from tests.unit.fakes import CALLS_MAX, Clock

pytestmark = pytest.mark.django_db(databases=["default", "chat"])

# A participant's answer to a page: its findings, in one part or several. None means no answer.
Answer = Sequence[Sequence[Mapping[str, Any]]] | None
Participant = Callable[[dict[str, Any]], Answer]


class Participants:
    """All participants, with the broker between them and auth. They answer a page when auth next reads."""

    def __init__(self, clock: Clock, answering: Mapping[str, Participant]) -> None:
        self.pages: list[dict[str, Any]] = []
        self.keys: list[Any] = []
        self.timeouts: set[float] = set()
        self.unanswered_most = 0
        # Messages that come just before and just after the answers to the first page.
        self.before: list[Incoming] = []
        self.after: list[Incoming] = []
        self.step = POLL
        self.reads: list[float] = []
        self._clock, self._answering = clock, answering
        self._asked: list[dict[str, Any]] = []

    def send_all(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        [message] = messages
        assert message.topic == RECONCILE_REQUESTED
        page = json.loads(message.value)
        self.pages.append(page)
        self.keys.append(message.key)
        self.timeouts.add(timeout)
        self._asked.append(page)
        self.unanswered_most = max(self.unanswered_most, len(self._asked))

    def read(self, timeout: float) -> list[Incoming]:
        self.reads.append(timeout)
        assert len(self.reads) < CALLS_MAX, "this would never end"
        if not self._asked:
            self._clock.now += self.step
            return []
        page = self._asked.pop(0)
        answers = [
            answered(page["runId"], page["page"], service, part, more=number + 1 < len(parts))
            for service in page["services"]
            if (parts := self._answering[service](page)) is not None
            for number, part in enumerate(parts)
        ]
        before, self.before, after, self.after = self.before, [], self.after, []
        return [*before, *answers, *after]


def answered(
    run_id: str, page: int, service: str, findings: Sequence[Mapping[str, Any]], *, more: bool = False
) -> Incoming:
    body = {"runId": run_id, "page": page, "service": service, "findings": list(findings), "more": more}
    return Incoming("user.reconcile.res", 0, 0, None, json.dumps(body).encode())


class Run:
    """One run, with these participants."""

    def __init__(self, clock: Clock, answering: Mapping[str, Participant], **options: Any) -> None:
        self.participants = Participants(clock, answering)
        self.found: list[tuple[str, Finding]] = []
        self.reconciliation = Reconciliation(
            self.participants, self.participants, services=answering, timeout=30.0,
            report=lambda service, finding: self.found.append((service, finding)),
            **{"heal": False} | options,
        )  # fmt: skip

    def to_its_end(self) -> "Run":
        self.sizes = list(self.reconciliation.run())
        return self

    @property
    def said(self) -> list[tuple[str, str, bool]]:
        return [(finding.kind, finding.user_id, finding.healed) for _, finding in self.found]

    @property
    def pages(self) -> list[dict[str, Any]]:
        return self.participants.pages


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reconciliation, "time", clock)
    return clock


@pytest.fixture
def run(clock) -> Callable[..., Run]:
    def run_with(chat: Participant, *, customer: Participant | None = None, **options: Any) -> Run:
        others = {"customer": customer} if customer else {}
        return Run(clock, {"chat": chat, **others}, **options).to_its_end()

    return run_with


def agreeing(page: dict[str, Any]) -> Answer:
    return [[]]


def finding(kind: str, user: User | str, *held_by: UUID | None, **more: Any) -> dict[str, Any]:
    """A finding about auth's record of this user, or about a row with this user ID."""
    said = {"kind": kind, "userId": user, "email": f"{user}@example.org"}
    if isinstance(user, User):
        said = {"kind": kind, "userId": user.user_id, "email": user.email, "ownerSignupId": str(user.owner_signup_id)}
    if held_by:
        said["heldBy"] = [
            {"userId": "held", "email": "held@example.org"} | ({"ownerSignupId": str(owner)} if owner else {})
            for owner in held_by
        ]
    return said | more


def once(*findings: Mapping[str, Any]) -> Participant:
    """Report these findings on the page of auth's records, and none on later pages."""
    return lambda page: [findings] if "owners" in page else [[]]


def saved(*user_ids: str) -> list[User]:
    """Save users whose sign-ups all services answered long ago."""
    for user_id in user_ids:
        complete(save_signup(user_id).id)
    rows = list(EventTransaction.objects.all())
    for row in rows:
        lights = {name: light | {"decidedAt": "2026-01-01T00:00:00Z"} for name, light in row.lights.items()}
        EventTransaction.objects.filter(id=row.id).update(lights=lights)
    return [User.objects.get(user_id=user_id) for user_id in user_ids]


def owners_of(page: Mapping[str, Any]) -> set[UUID]:
    return {UUID(record["ownerSignupId"]) for record in page["records"]}


# --- Pages --------------------------------------------------------------------------------------------------------


def test_a_run_asks_about_every_record_and_then_about_rows_without_an_owner(run, monkeypatch):
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    kim, lee = saved("kim", "lee")
    done = run(agreeing, customer=agreeing, heal=True)
    first, last = done.pages
    run_id = str(done.reconciliation.run_id)
    assert [(page["runId"], page["page"], page["heal"]) for page in done.pages] == [
        (run_id, 1, True),
        (run_id, 2, True),
    ]
    assert [page["services"] for page in done.pages] == [["chat", "customer"]] * 2
    assert datetime.fromisoformat(first["occurredAt"]) == now
    assert datetime.fromisoformat(first["expiresAt"]) == now + timedelta(seconds=30)
    assert owners_of(first) == {kim.owner_signup_id, lee.owner_signup_id}
    assert (first["owners"], first.get("unowned"), first.get("removed")) == ({}, None, None)
    assert (last["records"], last.get("owners"), last["unowned"]) == ([], None, True)
    assert done.sizes == [2]
    assert done.participants.keys == [f"{run_id}:1", f"{run_id}:2"]
    assert done.participants.timeouts == {ACKNOWLEDGED_WITHIN}
    assert set(done.participants.reads) == {POLL}
    assert done.found == []
    result = done.reconciliation.result
    assert [(each.is_silent, each.on_the_way, each.entangled, each.healed) for each in result.values()] == [
        (False, 0, 0, 0),
    ] * 2  # fmt: skip


def test_a_run_that_does_not_heal_says_so_on_every_page(run):
    assert [page["heal"] for page in run(agreeing).pages] == [False, False]


def test_a_page_names_the_accounts_that_auth_has_removed(run):
    removed = RemovedAccount.objects.create(owner_signup_id=uuid4(), version=2)
    [first, _] = run(agreeing).pages
    assert (first["records"], first["removed"]) == ([], [str(removed.owner_signup_id)])


def test_a_few_pages_are_on_their_way_at_a_time(run, monkeypatch):
    monkeypatch.setattr(records, "PAGE", 1)
    saved(*(f"u{number}" for number in range(12)))
    done = run(agreeing)
    assert len(done.pages) == 12 + 2
    assert done.participants.unanswered_most == WINDOW


def test_answers_of_other_runs_repeated_ones_and_unreadable_ones_change_nothing(clock, caplog):
    kim, lee = saved("kim", "lee")
    run = Run(clock, {"chat": once(finding("missing", kim)), "customer": agreeing})
    run_id = str(run.reconciliation.run_id)
    other = [finding("different", lee)]
    run.participants.before = [
        answered(str(uuid4()), 1, "chat", other),
        answered(run_id, 7, "chat", other),
        answered(run_id, 1, "nobody", other),
        Incoming("user.reconcile.res", 0, 0, None, b"{}"),
        Incoming("user.reconcile.res", 0, 0, None, b" " * (ANSWER_MAX + 1)),
        answered(run_id, 1, "chat", [finding("missing", kim)]),
        answered(run_id, 1, "chat", other),
    ]
    run.participants.after = [answered(run_id, 1, "customer", other)]
    run.to_its_end()
    assert run.said == [("missing", "kim", False)]
    assert caplog.text.count("an answer can't be decoded") == 2


def test_an_answer_as_large_as_kafka_allows_is_read(clock):
    run = Run(clock, {"chat": lambda page: None if "owners" in page else [[]]})
    whole = answered(str(run.reconciliation.run_id), 1, "chat", [finding("superfluous", "kim")])
    large = whole.value + b" " * (ANSWER_MAX - len(whole.value))
    run.participants.before = [Incoming(whole.topic, 0, 0, None, large)]
    run.to_its_end()
    assert run.said == [("superfluous", "kim", False)]


def test_an_answer_in_parts_is_over_with_the_last_one(run):
    kim, lee = saved("kim", "lee")

    def in_parts(page: dict[str, Any]) -> Answer:
        return [[finding("missing", kim)], [finding("different", lee)]] if "owners" in page else [[]]

    done = run(in_parts)
    assert done.said == [("missing", "kim", False), ("different", "lee", False)]
    assert not done.reconciliation.result["chat"].is_silent


# --- Silence ------------------------------------------------------------------------------------------------------


def test_a_participant_that_did_not_answer_a_page_gets_no_further_pages(run, clock, monkeypatch):
    monkeypatch.setattr(records, "PAGE", 1)
    saved(*(f"u{number}" for number in range(WINDOW + 1)))
    done = run(agreeing, customer=lambda page: None)
    assert (done.reconciliation.result["customer"].is_silent, done.reconciliation.result["chat"].is_silent) == (
        True,
        False,
    )
    assert [page["services"] for page in done.pages] == [["chat", "customer"]] * WINDOW + [["chat"]] * 3
    assert clock.now == pytest.approx(1000.0 + 30.0 + GRACE, abs=2 * POLL)


def test_a_run_ends_if_no_participant_answers(run):
    done = run(lambda page: None, customer=lambda page: None)
    assert [each.is_silent for each in done.reconciliation.result.values()] == [True, True]
    assert len(done.pages) == 2


@pytest.mark.parametrize(("late_by", "is_silent"), [(0.0, False), (0.5, True)])
def test_an_answer_may_take_the_time_of_a_page_and_the_grace(clock, late_by, is_silent):
    run = Run(clock, {"chat": lambda page: [[]] if page.get("unowned") else None})
    run.participants.step = 30.0 + GRACE + late_by
    read, answers = run.participants.read, [answered(str(run.reconciliation.run_id), 1, "chat", [])]

    def read_late(timeout: float) -> list[Incoming]:
        # The first two reads find both pages, of which one is answered; the next one takes until the deadline.
        return read(timeout) if len(run.participants.reads) < 3 else answers

    run.participants.read = read_late
    run.to_its_end()
    assert run.reconciliation.result["chat"].is_silent is is_silent


def test_a_finding_that_a_silent_participant_was_asked_about_again_is_reported_unchanged(run):
    kim, lee = saved("kim", "lee")
    stuck = finding("conflicting", kim, lee.owner_signup_id)
    done = run(lambda page: [[stuck]] if "owners" in page else ([[]] if page.get("unowned") else None))
    assert done.said == [("conflicting", "kim", False)]
    assert done.reconciliation.result["chat"].is_silent


def test_a_finding_that_cannot_be_asked_again_is_reported(run, monkeypatch):
    monkeypatch.setattr(records, "PAGE", 1)
    first, second = sorted(saved("kim", "lee"), key=lambda user: user.owner_signup_id)
    stuck = finding("conflicting", first, second.owner_signup_id)

    def then_silent(page: dict[str, Any]) -> Answer:
        return [[stuck]] if page["page"] == 1 else None

    monkeypatch.setattr(reconciliation, "WINDOW", 1)
    done = run(then_silent)
    assert done.said == [("conflicting", first.user_id, False)]


# --- Which findings are final -------------------------------------------------------------------------------------


def test_each_finding_is_reported_with_its_service_and_counted(run):
    kim, lee, zoe = saved("kim", "lee", "zoe")
    done = run(
        once(finding("missing", kim, healed=True), finding("different", lee), finding("different", zoe)),
        customer=once(finding("different", kim, healed=True, fields=["email"])),
        heal=True,
    )
    assert [(service, each.kind, each.user_id, each.healed) for service, each in done.found] == [
        ("chat", "missing", "kim", True), ("chat", "different", "lee", False), ("chat", "different", "zoe", False),
        ("customer", "different", "kim", True),
    ]  # fmt: skip
    chat, customer = done.reconciliation.result["chat"], done.reconciliation.result["customer"]
    assert (chat.healed, chat.left("missing"), chat.left("different"), chat.left("missing", "different")) == (
        1,
        0,
        2,
        2,
    )
    assert (customer.healed, customer.left("different")) == (1, 0)


def test_a_record_that_is_gone_since_its_page_was_read_is_no_finding_but_a_removed_row_is(run):
    [kim] = saved("kim")
    gone = finding("missing", "lee", ownerSignupId=str(uuid4()))
    removed = finding("removed", "old", ownerSignupId=str(uuid4()))
    done = run(once(gone | {"kind": "different"}, removed, finding("missing", kim)))
    assert done.said == [("removed", "old", False), ("missing", "kim", False)]


def test_findings_about_owners_of_other_pages_are_reported_by_those_pages_only(run):
    kim, lee = saved("kim", "lee")
    stuck = finding("conflicting", kim, lee.owner_signup_id)

    def answer(page: dict[str, Any]) -> Answer:
        if "owners" in page:
            return [[stuck, finding("different", lee)]]
        if page.get("unowned"):
            return [[finding("different", lee)]]
        return [[stuck, finding("different", lee), finding("removed", lee), finding("superfluous", lee)]]

    assert run(answer).said == [("different", "lee", False), ("conflicting", "kim", False)]


def test_a_page_reports_one_finding_per_owner(run):
    [kim] = saved("kim")
    done = run(once(finding("missing", kim), finding("different", kim)))
    assert done.said == [("missing", "kim", False)]


def test_a_finding_without_an_owner_is_reported_only_as_superfluous(run):
    done = run(once(finding("missing", "kim"), finding("superfluous", "lee")))
    assert done.said == [("superfluous", "lee", False)]


def test_a_second_row_of_a_record_is_superfluous_and_a_row_that_auth_knows_by_now_is_not(run):
    [kim] = saved("kim")

    def answer(page: dict[str, Any]) -> Answer:
        if page.get("unowned"):
            return [[]]
        late = finding("superfluous", "new", ownerSignupId=str(save_signup("new").id))
        return [[finding("superfluous", kim), late, finding("superfluous", "KIM", ownerSignupId=str(uuid4()))]]

    assert run(answer).said == [("superfluous", "kim", False)]
    assert User.objects.filter(user_id="new").exists()


def test_a_superfluous_row_hides_none_of_the_findings_before_it(run):
    [kim] = saved("kim")
    done = run(once(finding("missing", kim, healed=True), finding("superfluous", kim)))
    assert done.said == [("missing", "kim", True), ("superfluous", "kim", False)]


def test_a_conflict_with_a_row_that_an_administrator_made_is_reported_at_once(run):
    [kim] = saved("kim")
    done = run(once(finding("conflicting", kim, None)))
    assert done.said == [("conflicting", "kim", False)]
    assert len(done.pages) == 2


# --- What is on its way -------------------------------------------------------------------------------------------


def on_the_way(run: Callable[..., Run], *findings: Mapping[str, Any]) -> tuple[list[tuple[str, str, bool]], int]:
    done = run(once(*findings))
    return done.said, done.reconciliation.result["chat"].on_the_way


def test_a_missing_row_whose_sign_up_is_not_answered_yet_is_on_its_way(run):
    kim = User.objects.get(owner_signup_id=save_signup("kim").id)
    missing = finding("missing", kim)
    assert on_the_way(run, missing) == ([], 1)
    SignUp.objects.update(stalled_at=timezone.now())
    assert on_the_way(run, missing) == ([("missing", "kim", False)], 0)


def test_a_pending_sign_up_hides_only_a_missing_row(run):
    kim = User.objects.get(owner_signup_id=save_signup("kim").id)
    assert on_the_way(run, finding("different", kim)) == ([("different", "kim", False)], 0)


@pytest.mark.parametrize("kind", [Kind.CHANGE, Kind.REMOVAL])
@pytest.mark.parametrize("found", ["missing", "different", "removed"])
def test_a_pending_change_or_removal_hides_every_finding(run, kind, found):
    [kim] = saved("kim")
    other = save_signup("other")
    EventTransaction.objects.filter(id=other.id).update(kind=kind, owner_signup_id=kim.owner_signup_id)
    assert on_the_way(run, finding(found, kim)) == ([], 1)
    apply_verdicts([ReportedVerdict(other.id, Verdict("chat", Status.SUCCESS))])
    EventTransaction.objects.filter(id=other.id).update(lights=SignUp.objects.get(id=kim.owner_signup_id).lights)
    assert on_the_way(run, finding(found, kim)) == ([(found, "kim", False)], 0)


@pytest.mark.parametrize(("kind", "healed"), [("different", True), ("conflicting", False)])
def test_a_pending_change_does_not_hide_findings_that_it_cannot_repair(run, kind, healed):
    [kim] = saved("kim")
    other = save_signup("other")
    EventTransaction.objects.filter(id=other.id).update(kind=Kind.CHANGE, owner_signup_id=kim.owner_signup_id)
    assert on_the_way(run, finding(kind, kim, healed=healed)) == ([(kind, "kim", healed)], 0)


def test_a_sign_up_answered_since_the_run_began_counts_as_pending(clock):
    signup = save_signup("kim")
    kim = User.objects.get()
    run = Run(clock, {"chat": once(finding("missing", kim)), "customer": once(finding("missing", kim))})
    apply_verdicts([ReportedVerdict(signup.id, Verdict("chat", Status.SUCCESS))])
    EventTransaction.objects.filter(id=signup.id).update(
        lights={name: light for name, light in SignUp.objects.get().lights.items() if name != "customer"}
    )
    run.to_its_end()
    # Customer has no light: nobody will ask it about this sign-up.
    assert [(service, each.kind) for service, each in run.found] == [("customer", "missing")]
    assert run.reconciliation.result["chat"].on_the_way == 1
    assert run.reconciliation.result["customer"].on_the_way == 0


# --- What calls auth's own records into question ------------------------------------------------------------------


@pytest.mark.parametrize(("version", "is_reported"), [(1, False), (2, False), (3, True)])
def test_a_newer_row_is_reported_if_it_is_newer_than_auth_s_record_still(run, version, is_reported):
    [kim] = saved("kim")
    User._base_manager.update(version=2)
    done = run(once(finding("newer", kim, version=version)))
    assert done.said == ([("newer", "kim", False)] if is_reported else [])


def test_a_revived_record_is_reported_while_auth_has_it(run):
    kim, _ = saved("kim", "lee")
    done = run(once(finding("revived", kim), finding("revived", "old", ownerSignupId=str(uuid4()))))
    assert done.said == [("revived", "kim", False)]


@pytest.mark.parametrize("kind", ["newer", "revived"])
@pytest.mark.parametrize("mends", [True, False])
def test_auth_repairs_its_record_if_asked_to(run, kind, mends):
    kim, lee = saved("kim", "lee")
    asked: list[Finding] = []

    def repair(finding: Finding) -> bool:
        asked.append(finding)
        return mends

    done = run(once(finding(kind, kim, version=2), finding("different", lee)), repair=repair)
    assert done.said == [(kind, "kim", mends), ("different", "lee", False)]
    assert [(each.kind, each.user_id, each.version) for each in asked] == [(kind, "kim", 2)]
    assert done.reconciliation.result["chat"].counts[kind, mends] == 1


# --- What is stuck ------------------------------------------------------------------------------------------------


def asked_again(done: Run) -> list[dict[str, Any]]:
    return [page for page in done.pages if "owners" not in page and not page.get("unowned")]


def test_a_conflict_is_asked_again_together_with_the_owners_of_the_rows_in_its_way(run):
    kim, lee, _ = saved("kim", "lee", "zoe")
    gone, removed = uuid4(), uuid4()
    RemovedAccount.objects.create(owner_signup_id=removed, version=2)
    stuck = finding("conflicting", kim, lee.owner_signup_id, gone, removed, None)

    def answer(page: dict[str, Any]) -> Answer:
        if "owners" in page:
            return [[stuck]]
        return [[]] if page.get("unowned") else [[finding("different", kim, healed=True)]]

    done = run(answer, customer=agreeing, heal=True)
    [again] = asked_again(done)
    assert owners_of(again) == {kim.owner_signup_id, lee.owner_signup_id}
    assert (again["gone"], again["removed"], again["services"]) == ([str(gone)], [str(removed)], ["chat"])
    assert done.said == [("different", "kim", True)]


def test_a_conflict_grows_until_it_stops_growing_and_is_reported_then(run):
    users = saved(*(f"u{number}" for number in range(5)))
    in_the_way = {user.owner_signup_id: users[(n + 1) % 5].owner_signup_id for n, user in enumerate(users)}
    of_owner = {user.owner_signup_id: user for user in users}

    def answer(page: dict[str, Any]) -> Answer:
        if "owners" in page:
            return [[finding("conflicting", users[0], in_the_way[users[0].owner_signup_id])]]
        return [[finding("conflicting", of_owner[each], in_the_way[each]) for each in owners_of(page)]]

    done = run(answer)
    assert [len(page["records"]) for page in asked_again(done)] == [2, 3, 4, 5]
    assert done.said == [("conflicting", "u0", False)]
    assert done.reconciliation.result["chat"].entangled == 0


def test_a_finding_that_was_healed_on_the_second_request_is_not_reported_as_stuck(run):
    kim, lee, zoe = saved("kim", "lee", "zoe")

    def answer(page: dict[str, Any]) -> Answer:
        if "owners" in page:
            return [[finding("conflicting", user, zoe.owner_signup_id) for user in (kim, lee)]]
        if page.get("unowned"):
            return [[]]
        if page.get("gone"):
            return None
        return [[finding("different", kim, healed=True), finding("conflicting", lee, uuid4())]]

    done = run(answer, heal=True)
    assert done.said == [("different", "kim", True), ("conflicting", "lee", False)]
    assert done.reconciliation.result["chat"].is_silent


def test_conflicts_among_more_rows_than_fit_on_a_page_are_counted_as_entangled(run, monkeypatch):
    monkeypatch.setattr(reconciliation, "QUESTION_MAX", 3)
    monkeypatch.setattr(reconciliation, "STUCK", 1)
    users = saved(*(f"u{number}" for number in range(8)))
    in_the_way = {user: [each.owner_signup_id for each in users[n + 1 : n + 4]] for n, user in enumerate(users)}
    stuck = [users[0], users[4]]

    def answer(page: dict[str, Any]) -> Answer:
        asked = [each for each in stuck if each.owner_signup_id in owners_of(page)]
        return [[finding("conflicting", each, *in_the_way[each]) for each in asked]]

    done = run(answer)
    # The first ones in the order of the owners, as many as fit.
    assert [owners_of(page) for page in asked_again(done)] == [
        {each.owner_signup_id, *sorted(in_the_way[each])[:2]} for each in stuck
    ]
    assert done.said == [("conflicting", "u0", False), ("conflicting", "u4", False)]
    assert done.reconciliation.result["chat"].entangled == 2


def test_stuck_findings_are_asked_again_in_groups_of_limited_size(run, monkeypatch):
    monkeypatch.setattr(reconciliation, "STUCK", 2)
    users = saved(*(f"u{number}" for number in range(3)))
    gone = [uuid4() for _ in users]
    stuck = [finding("conflicting", user, owner) for user, owner in zip(users, gone, strict=True)]
    done = run(once(*stuck))
    assert [len(page["records"]) for page in asked_again(done)] == [2, 1]
    assert [page["gone"] for page in asked_again(done)] == [sorted(map(str, gone[:2])), [str(gone[2])]]


@pytest.mark.parametrize(("most", "pages"), [(3, [3]), (2, [2, 2])])
def test_groups_that_share_a_record_are_asked_together_if_they_fit_on_a_page(run, monkeypatch, most, pages):
    monkeypatch.setattr(reconciliation, "STUCK", 1)
    monkeypatch.setattr(reconciliation, "QUESTION_MAX", most)
    kim, lee, zoe = saved("kim", "lee", "zoe")
    gone = [uuid4(), uuid4()]
    stuck = [
        finding("conflicting", user, lee.owner_signup_id, owner) for user, owner in zip((kim, zoe), gone, strict=True)
    ]

    def answer(page: dict[str, Any]) -> Answer:
        if "owners" in page:
            return [stuck]
        mine = [each for each in stuck if UUID(each["ownerSignupId"]) in owners_of(page)]
        return [mine]

    done = run(answer)
    assert [len(page["records"]) for page in asked_again(done)] == pages
    together = [gone] if len(pages) == 1 else [[owner] for owner in gone]
    assert [page["gone"] for page in asked_again(done)] == [sorted(map(str, owners)) for owners in together]
    assert sorted(done.said) == [("conflicting", "kim", False), ("conflicting", "zoe", False)]


def test_groups_of_different_services_or_records_are_asked_separately(run, monkeypatch):
    monkeypatch.setattr(reconciliation, "STUCK", 1)
    kim, lee = saved("kim", "lee")
    stuck = [finding("conflicting", user, uuid4()) for user in (kim, lee)]
    done = run(once(*stuck), customer=once(stuck[0]))
    assert [(page["services"], len(page["records"])) for page in asked_again(done)] == [
        (["chat"], 1), (["chat"], 1), (["customer"], 1),
    ]  # fmt: skip


def test_users_who_exchanged_their_addresses_are_healed_by_the_real_participant(run):
    kim, lee = saved("kim", "lee")
    for user, other in ((kim, lee), (lee, kim)):
        ChatUser.objects.create(
            owner_signup_id=user.owner_signup_id, user_id=user.user_id, email=f"{other.email}",
            user_name=user.user_name,
        )  # fmt: skip
    [_, pages] = subscriptions_of("chat")

    def answer(page: dict[str, Any]) -> Answer:
        handled = pages.handle([Incoming("user.reconcile.req", 0, 0, None, json.dumps(page).encode())])
        return [json.loads(message.value)["findings"] for message in handled.answers]

    done = run(answer, heal=True)
    assert sorted(done.said) == [("different", "kim", True), ("different", "lee", True)]
    assert run(answer).found == []


# --- Records ------------------------------------------------------------------------------------------------------


def covered(pages: Iterable[Any]) -> tuple[list[UUID], list[UUID]]:
    """The owners of all records and of all tombstones, after checks of each page's range."""
    found: tuple[list[UUID], list[UUID]] = ([], [])
    after, is_last = None, False
    for page_records, removed, owners in pages:
        assert not is_last
        assert owners.after == after
        listed = [record.owner_signup_id for record in page_records]
        for each in (listed, removed):
            assert each == sorted(each)
            assert all((after is None or owner > after) for owner in each)
            assert all((owners.up_to is None or owner <= owners.up_to) for owner in each)
        found[0].extend(listed)
        found[1].extend(removed)
        after, is_last = owners.up_to, owners.up_to is None
    assert is_last
    return found


@pytest.mark.parametrize("page", [1, 2, 3, 5, 6, 250])
@pytest.mark.parametrize("is_mixed", [True, False])
def test_pages_cover_all_records_and_tombstones_once_each(monkeypatch, page, is_mixed):
    monkeypatch.setattr(records, "PAGE", page)
    saved(*(f"u{number}" for number in range(5)))
    owners = sorted(User.objects.values_list("owner_signup_id", flat=True))
    buried = [UUID(int=owner.int + 1) for owner in owners[1:4]] if is_mixed else [UUID(int=n) for n in (1, 2, 3)]
    for owner in buried:
        RemovedAccount.objects.create(owner_signup_id=owner, version=2)
    assert covered(record_pages()) == (owners, sorted(buried))


def test_an_account_that_is_removed_meanwhile_is_listed_as_removed_only():
    kim, lee = saved("kim", "lee")
    RemovedAccount.objects.create(owner_signup_id=kim.owner_signup_id, version=2)
    assert covered(record_pages()) == ([lee.owner_signup_id], [kim.owner_signup_id])


def test_without_any_record_there_is_one_empty_page():
    [(page_records, removed, owners)] = record_pages()
    assert (page_records, removed, owners.after, owners.up_to) == ([], [], None, None)


def test_a_row_without_a_record_is_one_whose_owner_user_id_and_address_auth_does_not_have():
    [kim] = saved("kim")
    free, other = "free@example.org", "other@example.org"
    rows = [
        Finding("superfluous", "lee", free, uuid4()), Finding("superfluous", "KIM", free, uuid4()),
        Finding("superfluous", "zoe", "Kim@Example.ORG", uuid4()), Finding("superfluous", "zoe", other, None),
        Finding("superfluous", "zoe", other, kim.owner_signup_id),
    ]  # fmt: skip
    assert list(without_record(rows)) == [rows[0], rows[3]]
    assert [row for row in rows if list(without_record([row]))] == [rows[0], rows[3]]


def test_owners_are_known_removed_or_unknown():
    [kim] = saved("kim")
    gone, removed = uuid4(), uuid4()
    RemovedAccount.objects.create(owner_signup_id=removed, version=2)
    owners = [kim.owner_signup_id, gone, removed]
    assert known_owners(owners) == {kim.owner_signup_id}
    assert removed_owners(owners) == {removed}


@pytest.mark.parametrize(
    ("items", "chunks"), [("", []), ("a", ["a"]), ("abc", ["abc"]), ("abcd", ["abc", "d"]), ("abcdef", ["abc", "def"])]
)
def test_chunks_have_the_largest_allowed_size(items, chunks):
    assert list(in_chunks(items, 3)) == chunks


def test_a_chunk_has_a_page_by_default():
    assert [len(chunk) for chunk in in_chunks(range(records.PAGE + 1))] == [records.PAGE, 1]


def test_names_from_a_service_cannot_control_the_terminal():
    examples = Examples()
    examples.add("crm", Finding("superfluous", "\x1b[2Jkim", "kim@example.org\x07", uuid4()))
    [_head, _counts, line] = as_text({"crm": Verification()}, examples)
    assert line.startswith(r"crm: superfluous \x1b[2Jkim kim@example.org\x07 ")
