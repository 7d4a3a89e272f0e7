"""The rules of a participant (docs/invariants.md, 1 and 13), by examples and as properties over worlds of sign-ups."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant.decisions import decide
from participant.events import NewUser, Request, UserRecord
from participant.verdict import DONE, REMOVED, Holder, Judgement, VerdictCode
from runtime.equality import normalize_email, user_id_key
from tests.unit.participant.requests import change, removal, request

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """A participant's row; without sign-ups it is an administrator's."""

    user_id: str
    email: str
    signup_id: UUID | None = None
    owner_signup_id: UUID | None = None
    user_name: str = "Kim"
    role: str = "ROLE_USER"
    version: int = 1
    is_account_active: bool = True
    removed_at: datetime | None = None

    @property
    def user_id_key(self) -> str:
        return user_id_key(self.user_id)


def row_of(record: UserRecord, signup_id: UUID | None = None) -> Row:
    return Row(
        user_id=record.user_id,
        email=record.email,
        signup_id=signup_id or (record.signup_id if isinstance(record, NewUser) else record.owner_signup_id),
        owner_signup_id=record.owner_signup_id,
        version=record.version,
        is_account_active=record.is_account_active,
    )


@dataclass
class Participant:
    """A participant whose table is a list."""

    table: list[Row] = field(default_factory=list)

    def judge(self, *requests: Request) -> list[Judgement]:
        decision = decide(requests, self.table)
        for each in decision.removals:
            owner = each.owner_signup_id
            self.table = [row for row in self.table if row.owner_signup_id != owner]
            self.table.append(Row(f"removed {owner}", f"removed {owner}", owner_signup_id=owner, removed_at=NOW))
        for record, old in decision.updates:
            self.table[self.table.index(old)] = replace(row_of(record), signup_id=old.signup_id)
        self.table += [row_of(record, signup_id) for record, signup_id in decision.inserts]
        return decision.judgements

    def answer(self, requests: Sequence[Request]) -> list[VerdictCode]:
        return [each.verdict for each in self.judge(*requests)]

    @property
    def rows(self) -> list[Row]:
        return [row for row in self.table if not row.removed_at]


def held_by(verdict: VerdictCode, *owners: int, version: int = 1) -> Judgement:
    return Judgement(verdict, tuple(Holder(UUID(int=owner), version) for owner in owners))


def test_a_new_user_is_stored():
    participant = Participant()
    assert participant.answer([request()]) == [VerdictCode.DONE]
    assert participant.rows == [row_of(request())]


@pytest.mark.parametrize("same", ["kim", "KIM", "ｋｉｍ", "Ｋim"])
def test_a_user_id_is_a_duplicate_in_any_case_and_width(same):
    participant = Participant([Row("kim", "other@example.org")])
    assert participant.answer([request(same, "new@example.org")]) == [VerdictCode.DUPLICATE_USER_ID]


def test_an_email_is_a_duplicate_in_any_case():
    participant = Participant([Row("other", "kim@example.org")])
    assert participant.answer([request("new", "KIM@Example.org")]) == [VerdictCode.DUPLICATE_EMAIL]


def test_if_the_two_keys_belong_to_different_users_the_user_id_is_named():
    participant = Participant([Row("kim", "a@example.org"), Row("lee", "kim@example.org")])
    assert participant.answer([request("kim", "kim@example.org")]) == [VerdictCode.DUPLICATE_USER_ID]
    assert len(participant.rows) == 2


def test_a_stranger_gets_a_duplicate_for_the_owners_user():
    participant = Participant([row_of(request(signup=1))])
    assert participant.answer([request(signup=2, owner=1)]) == [VerdictCode.DUPLICATE_USER_ID]


def test_a_batch_stores_a_user_once():
    participant = Participant()
    answers = participant.answer([request(signup=1), request(signup=2), request("lee", signup=3)])
    assert answers == [VerdictCode.DONE, VerdictCode.DUPLICATE_USER_ID, VerdictCode.DUPLICATE_EMAIL]
    assert len(participant.rows) == 1


def test_a_stranger_whose_request_overtakes_the_owners_is_kept_and_so_is_the_owner():
    participant = Participant()
    assert participant.answer([request(signup=2, owner=1)]) == [VerdictCode.DONE]
    assert participant.answer([request(signup=1)]) == [VerdictCode.DONE]
    assert participant.answer([request(signup=3, owner=1)]) == [VerdictCode.DUPLICATE_USER_ID]
    assert len(participant.rows) == 1


def test_a_stranger_gets_a_duplicate_for_another_strangers_row():
    """Both were made by strangers to the same record: only the owner may claim the other's row."""
    participant = Participant([row_of(request(signup=2, owner=1))])
    assert participant.answer([request(signup=3, owner=1)]) == [VerdictCode.DUPLICATE_USER_ID]


def test_a_replay_of_a_record_that_changed_in_auth_still_finds_its_row():
    participant = Participant([row_of(request("kim", "kim@example.org")), Row("lee", "lee@example.org")])
    assert participant.answer([request("kim", "lee@example.org")]) == [VerdictCode.DONE]
    assert participant.answer([request("lee", "kim@example.org")]) == [VerdictCode.DONE]


def test_a_lost_row_is_added_again():
    participant = Participant()
    participant.answer([request()])
    participant.table.clear()
    assert participant.answer([request()]) == [VerdictCode.DONE]
    assert participant.rows == [row_of(request())]


def test_every_reason_is_one_of_the_contract():
    assert [(v.status, v.reason) for v in VerdictCode] == [
        ("SUCCESS", None),
        ("FAIL", "duplicate: userId"),
        ("FAIL", "duplicate: email"),
        ("FAIL", "removed"),
    ]


def test_a_stranger_learns_which_account_is_in_the_way_and_nothing_about_an_administrators_row():
    participant = Participant([row_of(request(signup=1)), Row("lee", "lee@example.org")])
    assert participant.judge(
        request(signup=2, owner=1), request("kim", signup=3), request("new", signup=4), request("lee", "x@x", signup=5)
    ) == [
        held_by(VerdictCode.DUPLICATE_USER_ID, 1),
        held_by(VerdictCode.DUPLICATE_USER_ID, 1),
        held_by(VerdictCode.DUPLICATE_EMAIL, 1),
        held_by(VerdictCode.DUPLICATE_USER_ID),
    ]


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        (("old", "old@example.org"), VerdictCode.DUPLICATE_USER_ID),
        (("kim", "old@example.org"), VerdictCode.DUPLICATE_USER_ID),
        (("old", "kim@example.org"), VerdictCode.DUPLICATE_EMAIL),
    ],
)
def test_an_accounts_row_is_known_whatever_its_keys_and_a_stranger_learns_which_one_is_taken(holds, verdict):
    participant = Participant([row_of(request(*holds, signup=2, owner=1))])
    assert participant.judge(request(signup=1), request(signup=2, owner=1), request(signup=3, owner=1)) == [
        DONE,
        DONE,
        held_by(verdict, 1),
    ]
    assert len(participant.rows) == 1


# --- Changes ---------------------------------------------------------------------------------------------------------


def test_a_change_updates_the_accounts_row_and_keeps_the_sign_up_that_made_it():
    participant = Participant([row_of(request(signup=2, owner=1))])
    assert participant.judge(change("new", "new@example.org", is_active=False)) == [DONE]
    assert participant.rows == [
        replace(row_of(change("new", "new@example.org", is_active=False)), signup_id=UUID(int=2))
    ]


@pytest.mark.parametrize("version", [2, 3])
def test_a_change_that_is_not_newer_writes_nothing_and_succeeds(version):
    participant = Participant([row_of(change("newest", version=3))])
    assert participant.judge(change("older", version=version)) == [DONE]
    assert [row.user_id for row in participant.rows] == ["newest"]


def test_a_change_without_a_row_adds_it_and_the_late_sign_up_is_green():
    participant = Participant()
    assert participant.judge(change()) == [DONE]
    assert participant.judge(request("old", signup=1), request(signup=2, owner=1)) == [
        DONE,
        held_by(VerdictCode.DUPLICATE_USER_ID, 1, version=2),
    ]
    assert participant.rows == [row_of(change())]


def test_a_new_user_brings_an_older_row_up_to_date_and_keeps_its_verdict():
    participant = Participant([row_of(request("old", "old@example.org"))])
    asked = [request("kim", signup=5, owner=1, version=2), request("kim", signup=1, version=2)]
    assert participant.answer(asked) == [VerdictCode.DUPLICATE_USER_ID, VerdictCode.DONE]
    assert [(row.user_id, row.version) for row in participant.rows] == [("kim", 2)]


@pytest.mark.parametrize("owner", [None, 7])
@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        (("new", "x@example.org"), VerdictCode.DUPLICATE_USER_ID),
        (("x", "new@example.org"), VerdictCode.DUPLICATE_EMAIL),
        (("new", "new@example.org"), VerdictCode.DUPLICATE_USER_ID),
    ],
)
@pytest.mark.parametrize("has_row", [False, True])
def test_a_change_to_a_key_of_another_row_changes_nothing(holds, verdict, owner, has_row):
    other = Row(*holds, owner_signup_id=owner and UUID(int=owner))
    table = [other, row_of(request())] if has_row else [other]
    participant = Participant(list(table))
    expected = held_by(verdict, owner) if owner else held_by(verdict)
    assert participant.judge(change("new", "new@example.org")) == [expected]
    assert participant.table == table


def test_a_new_user_stays_green_though_a_newer_record_cannot_be_written():
    participant = Participant([row_of(request()), Row("lee", "lee@example.org")])
    assert participant.judge(request("lee", version=2)) == [DONE]
    assert [row.user_id for row in participant.rows] == ["kim", "lee"]


@pytest.mark.parametrize("users", [2, 3, 5])
def test_accounts_that_exchange_a_key_in_a_cycle_in_one_batch_all_succeed(users):
    numbers = range(1, users + 1)
    participant = Participant([row_of(request(f"u{n}", f"u{n}@example.org", signup=n)) for n in numbers])
    moved = [change(f"u{n}", f"u{n % users + 1}@example.org", owner=n) for n in numbers]
    assert participant.judge(*moved) == [DONE] * users
    assert [row.email for row in participant.rows] == [each.email for each in moved]


def test_an_account_that_waits_for_a_blocked_one_is_blocked_and_names_it():
    table = [row_of(request("a", "a@x", signup=1)), row_of(request("b", "b@x", signup=2)), Row("c", "c@x")]
    participant = Participant(list(table))
    assert participant.judge(change("a", "b@x", owner=1), change("b", "c@x", owner=2)) == [
        held_by(VerdictCode.DUPLICATE_EMAIL, 2),
        held_by(VerdictCode.DUPLICATE_EMAIL),
    ]
    assert participant.table == table


def test_the_first_of_two_claimants_gets_a_key_and_a_later_request_the_key_that_it_vacates():
    participant = Participant([row_of(request("a", "a@x", signup=1)), row_of(request("b", "b@x", signup=2))])
    late = request("c", "a@x", signup=3)
    asked = [change("a", "new@x", owner=1), change("b", "new@x", owner=2), late]
    assert participant.judge(*asked) == [DONE, held_by(VerdictCode.DUPLICATE_EMAIL, 1, version=2), DONE]


def test_a_sign_up_gets_a_key_that_a_change_vacates_after_another_claimant_was_refused():
    """The change is decided late, because the refused sign-up claims one of its keys first."""
    participant = Participant([row_of(request("old", "a@x", signup=3)), Row("taken", "taken@x")])
    asked = [request("a", "a@x", signup=1), request("b", "taken@x", signup=2), change("b", "new@x", owner=3)]
    assert participant.judge(*asked) == [DONE, held_by(VerdictCode.DUPLICATE_USER_ID, 3, version=2), DONE]
    assert {row.email for row in participant.rows} == {"a@x", "new@x", "taken@x"}


def test_only_the_newest_record_of_a_batch_is_written():
    decision = decide([change("b", version=3), request("a"), change("c", version=2)], [])
    assert [(record.user_id, record.version) for record, _ in decision.inserts] == [("b", 3)]
    assert decision.judgements == [DONE] * 3


# --- Removals --------------------------------------------------------------------------------------------------------


def test_a_removal_leaves_a_tombstone_with_or_without_a_row_and_is_green_again_and_again():
    for table in ([], [row_of(change("kim", version=12))]):
        participant = Participant(table)
        assert participant.judge(removal(), removal()) == [DONE, DONE]
        assert (participant.rows, len(participant.table)) == ([], 1)
        assert not decide([removal()], participant.table).overwrites
        assert participant.judge(removal()) == [DONE]


def test_of_an_accounts_removals_in_a_batch_the_newest_counts():
    [kept] = decide([removal(version=9), removal(version=8)], []).removals
    assert kept.version == 9


def test_nothing_restores_a_removed_account():
    participant = Participant([row_of(request())])
    assert participant.judge(removal()) == [DONE]
    late = [request(), request(signup=2, owner=1), change(version=99), request(version=99)]
    assert participant.judge(*late) == [REMOVED] * 4
    assert participant.rows == []


def test_in_one_batch_a_removal_comes_first_and_frees_the_keys_for_a_new_person():
    participant = Participant([row_of(request())])
    assert participant.judge(request(), request(signup=2), change(), removal()) == [REMOVED, DONE, REMOVED, DONE]
    assert participant.rows == [row_of(request(signup=2))]


USER_IDS = st.sampled_from(["a", "A", "ａ", "b", "B", "ß", "ss", "ẞ", "c"])
EMAILS = st.sampled_from([f"{name}@example.org" for name in ["a", "A", "b", "B", "c"]])
ADMINS_ROWS = st.lists(
    st.builds(Row, USER_IDS, EMAILS.map(normalize_email)),
    max_size=3,
    unique_by=(lambda row: row.user_id_key, lambda row: row.email),
)


@st.composite
def any_requests(draw):
    """Requests for a few accounts, two sign-ups for each, whose records may share keys, as if from different times."""
    records = draw(st.lists(st.tuples(USER_IDS, EMAILS), min_size=4, max_size=4))
    order = draw(st.lists(st.integers(1, 8), max_size=12))
    return [request(*records[signup % 4], signup=signup, owner=signup % 4 + 1) for signup in order]


@st.composite
def requests_of_auth(draw):
    """Requests as auth sends them: its records differ in both keys, each sign-up is about one of them, and a request
    carries the record. Any order, any repeats."""
    records = draw(
        st.lists(
            st.tuples(USER_IDS, EMAILS),
            min_size=1,
            unique_by=(lambda record: user_id_key(record[0]), lambda record: normalize_email(record[1])),
        )
    )
    owners = range(1, len(records) + 1)
    signups = {owner: owner for owner in owners}
    signups |= {10 + n: owner for n, owner in enumerate(draw(st.lists(st.sampled_from(owners), max_size=4)))}
    order = draw(st.lists(st.sampled_from(sorted(signups)), min_size=1, max_size=15))
    return [request(*records[signups[signup] - 1], signup=signup, owner=signups[signup]) for signup in order]


@given(ADMINS_ROWS, any_requests(), st.lists(st.integers(0, 12), max_size=5))
def test_splitting_a_batch_changes_no_verdict_and_no_row(rows, requests, cuts):
    whole, split = Participant(list(rows)), Participant(list(rows))
    bounds = [0, *sorted(min(cut, len(requests)) for cut in cuts), len(requests)]
    parts = [requests[start:end] for start, end in pairwise(bounds)]
    by_parts, at_once = [each for part in parts for each in split.answer(part)], whole.answer(requests)
    assert [each.status for each in by_parts] == [each.status for each in at_once]
    # Within a batch, an account gets one reason. After a row was added in between, the next request may get the other
    # one.
    firsts = {sent.owner_signup_id: place for place, sent in reversed(list(enumerate(requests)))}
    assert [by_parts[place] for place in firsts.values()] == [at_once[place] for place in firsts.values()]
    assert sorted(split.rows, key=repr) == sorted(whole.rows, key=repr)


@given(ADMINS_ROWS, requests_of_auth(), st.data())
def test_a_redelivery_never_changes_a_verdict(rows, requests, data):
    participant = Participant(list(rows))
    first: dict[UUID, VerdictCode] = {}
    for sent, verdict in zip(requests, participant.answer(requests), strict=True):
        assert first.setdefault(sent.signup_id, verdict) is verdict
    before = list(participant.rows)
    again = data.draw(st.permutations(requests))
    assert participant.answer(again) == [first[sent.signup_id] for sent in again]
    assert participant.rows == before


@given(ADMINS_ROWS, any_requests(), any_requests())
def test_a_light_that_is_green_stays_green_whatever_else_is_asked(rows, requests, others):
    participant = Participant(list(rows))
    verdicts = participant.answer(requests)
    participant.answer(others)
    kept = [sent for sent, verdict in zip(requests, verdicts, strict=True) if verdict is VerdictCode.DONE]
    assert set(participant.answer(kept)) <= {VerdictCode.DONE}


@given(requests_of_auth())
def test_no_order_of_owner_and_strangers_turns_an_owner_red(requests):
    for sent, verdict in zip(requests, Participant().answer(requests), strict=True):
        assert verdict is VerdictCode.DONE or sent.signup_id != sent.owner_signup_id


@given(requests_of_auth())
def test_at_most_one_stranger_to_a_record_is_green(requests):
    green: dict[UUID, set[UUID]] = {}
    for sent, verdict in zip(requests, Participant().answer(requests), strict=True):
        if verdict is VerdictCode.DONE and sent.signup_id != sent.owner_signup_id:
            green.setdefault(sent.owner_signup_id, set()).add(sent.signup_id)
    assert all(len(strangers) == 1 for strangers in green.values())


@given(ADMINS_ROWS, any_requests())
def test_no_two_rows_ever_share_a_key(rows, requests):
    participant = Participant(list(rows))
    participant.answer(requests)
    assert len({row.user_id_key for row in participant.rows}) == len(participant.rows)
    assert len({row.email for row in participant.rows}) == len(participant.rows)
