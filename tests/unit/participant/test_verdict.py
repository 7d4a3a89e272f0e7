"""The rule for verdicts (docs/invariants.md, 1), example by example and as properties over worlds of sign-ups."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant.events import NewUser
from participant.verdict import Kept, Verdict, decide
from runtime.equality import normalize_email, user_id_key
from tests.unit.participant.requests import request


@dataclass(frozen=True)
class AdminsRow:
    """A row that no sign-up made."""

    user_id: str
    email: str
    signup_id: UUID | None = None
    owner_signup_id: UUID | None = None

    @property
    def user_id_key(self) -> str:
        return user_id_key(self.user_id)


@dataclass
class Participant:
    """A participant whose table is a list."""

    rows: list[Kept] = field(default_factory=list)

    def answer(self, requests: Sequence[NewUser]) -> list[Verdict]:
        new, verdicts = decide(requests, self.rows)
        self.rows.extend(new)
        return verdicts


def test_it_keeps_a_user_that_it_does_not_know():
    participant = Participant()
    assert participant.answer([request()]) == [Verdict.KEPT]
    assert participant.rows == [request()]


@pytest.mark.parametrize("same", ["kim", "KIM", "ｋｉｍ", "Ｋim"])
def test_it_knows_a_user_id_in_any_case_and_width(same):
    participant = Participant([AdminsRow("kim", "other@example.org")])
    assert participant.answer([request(same, "new@example.org")]) == [Verdict.DUPLICATE_USER_ID]


def test_it_knows_an_email_in_any_case():
    participant = Participant([AdminsRow("other", "kim@example.org")])
    assert participant.answer([request("new", "KIM@Example.org")]) == [Verdict.DUPLICATE_EMAIL]


def test_it_names_the_user_id_where_the_two_keys_belong_to_different_users():
    participant = Participant([AdminsRow("kim", "a@example.org"), AdminsRow("lee", "kim@example.org")])
    assert participant.answer([request("kim", "kim@example.org")]) == [Verdict.DUPLICATE_USER_ID]
    assert len(participant.rows) == 2


def test_a_stranger_gets_a_duplicate_for_the_owners_user():
    participant = Participant([request(signup=1)])
    assert participant.answer([request(signup=2, owner=1)]) == [Verdict.DUPLICATE_USER_ID]


def test_one_batch_keeps_a_user_once():
    participant = Participant()
    answers = participant.answer([request(signup=1), request(signup=2), request("lee", signup=3)])
    assert answers == [Verdict.KEPT, Verdict.DUPLICATE_USER_ID, Verdict.DUPLICATE_EMAIL]
    assert len(participant.rows) == 1


def test_a_stranger_whose_request_overtakes_the_owners_is_kept_and_so_is_the_owner():
    participant = Participant()
    assert participant.answer([request(signup=2, owner=1)]) == [Verdict.KEPT]
    assert participant.answer([request(signup=1)]) == [Verdict.KEPT]
    assert participant.answer([request(signup=3, owner=1)]) == [Verdict.DUPLICATE_USER_ID]
    assert len(participant.rows) == 1


def test_a_stranger_is_not_the_owner_because_they_share_one():
    """Both were made by strangers to the same record: only the owner may claim the other's row."""
    participant = Participant([request(signup=2, owner=1)])
    assert participant.answer([request(signup=3, owner=1)]) == [Verdict.DUPLICATE_USER_ID]


def test_a_replay_of_a_record_that_changed_in_auth_still_finds_its_row():
    participant = Participant([request("kim", "kim@example.org"), AdminsRow("lee", "lee@example.org")])
    assert participant.answer([request("kim", "lee@example.org")]) == [Verdict.KEPT]
    assert participant.answer([request("lee", "kim@example.org")]) == [Verdict.KEPT]


def test_a_lost_row_is_added_again():
    participant = Participant()
    participant.answer([request()])
    participant.rows.clear()
    assert participant.answer([request()]) == [Verdict.KEPT]
    assert participant.rows == [request()]


def test_a_reason_is_the_contracts():
    assert [(v.status, v.reason) for v in Verdict] == [
        ("SUCCESS", None),
        ("FAIL", "duplicate: userId"),
        ("FAIL", "duplicate: email"),
    ]


USER_IDS = st.sampled_from(["a", "A", "ａ", "b", "B", "ß", "ss", "ẞ", "c"])
EMAILS = st.sampled_from([f"{name}@example.org" for name in ["a", "A", "b", "B", "c"]])
ADMINS_ROWS = st.lists(
    st.builds(AdminsRow, USER_IDS, EMAILS.map(normalize_email)),
    max_size=3,
    unique_by=(lambda row: row.user_id_key, lambda row: row.email),
)
ANY_REQUESTS = st.lists(
    st.builds(request, USER_IDS, EMAILS, signup=st.integers(1, 4), owner=st.integers(1, 4)), max_size=12
)


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


@given(ADMINS_ROWS, ANY_REQUESTS, st.lists(st.integers(0, 12), max_size=5))
def test_splitting_a_batch_changes_no_verdict_and_no_row(rows, requests, cuts):
    whole, split = Participant(list(rows)), Participant(list(rows))
    bounds = [0, *sorted(min(cut, len(requests)) for cut in cuts), len(requests)]
    parts = [requests[start:end] for start, end in pairwise(bounds)]
    assert [verdict for part in parts for verdict in split.answer(part)] == whole.answer(requests)
    assert split.rows == whole.rows


@given(ADMINS_ROWS, requests_of_auth(), st.data())
def test_a_redelivery_never_changes_a_verdict(rows, requests, data):
    participant = Participant(list(rows))
    first: dict[UUID, Verdict] = {}
    for sent, verdict in zip(requests, participant.answer(requests), strict=True):
        assert first.setdefault(sent.signup_id, verdict) is verdict
    before = list(participant.rows)
    again = data.draw(st.permutations(requests))
    assert participant.answer(again) == [first[sent.signup_id] for sent in again]
    assert participant.rows == before


@given(ADMINS_ROWS, ANY_REQUESTS, ANY_REQUESTS)
def test_a_light_that_is_green_stays_green_whatever_else_is_asked(rows, requests, others):
    participant = Participant(list(rows))
    verdicts = participant.answer(requests)
    participant.answer(others)
    kept = [sent for sent, verdict in zip(requests, verdicts, strict=True) if verdict is Verdict.KEPT]
    assert set(participant.answer(kept)) <= {Verdict.KEPT}


@given(requests_of_auth())
def test_no_order_of_owner_and_strangers_turns_an_owner_red(requests):
    for sent, verdict in zip(requests, Participant().answer(requests), strict=True):
        assert verdict is Verdict.KEPT or sent.signup_id != sent.owner_signup_id


@given(requests_of_auth())
def test_at_most_one_stranger_to_a_record_is_green(requests):
    green: dict[UUID, set[UUID]] = {}
    for sent, verdict in zip(requests, Participant().answer(requests), strict=True):
        if verdict is Verdict.KEPT and sent.signup_id != sent.owner_signup_id:
            green.setdefault(sent.owner_signup_id, set()).add(sent.signup_id)
    assert all(len(strangers) == 1 for strangers in green.values())


@given(ADMINS_ROWS, ANY_REQUESTS)
def test_no_two_rows_ever_share_a_key(rows, requests):
    participant = Participant(list(rows))
    participant.answer(requests)
    assert len({row.user_id_key for row in participant.rows}) == len(participant.rows)
    assert len({row.email for row in participant.rows}) == len(participant.rows)
