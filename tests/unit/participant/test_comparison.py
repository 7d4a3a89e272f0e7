"""The comparison of records and rows: by example, and as properties of arbitrary tables."""

from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant.comparison import Comparison, compare, vacating
from participant.events import UserRecord
from runtime.equality import user_id_key


@dataclass(frozen=True)
class Row:
    """A participant's row; without an owner it is an administrator's."""

    owner_signup_id: UUID | None
    user_id: str
    email: str
    user_name: str = "Kim"
    role: str = "ROLE_USER"
    version: int = 1
    is_account_active: bool = True

    @property
    def user_id_key(self) -> str:
        return user_id_key(self.user_id)


def record(owner: int, user_id: str = "kim", email: str = "kim@example.org", user_name: str = "Kim") -> UserRecord:
    return UserRecord(
        owner_signup_id=UUID(int=owner), user_id=user_id, email=email, user_name=user_name, role="ROLE_USER"
    )


def row(owner: int | None, user_id: str = "kim", email: str = "kim@example.org", **fields: str) -> Row:
    return Row(None if owner is None else UUID(int=owner), user_id, email, **fields)


def agrees(found: Comparison) -> bool:
    return found == Comparison()


def test_a_row_with_all_fields_of_its_record_agrees():
    assert agrees(compare([record(1)], [row(1)]))


def test_a_record_without_a_row_is_missing():
    assert compare([record(1)], []) == Comparison(missing=[record(1)])


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"user_name": "Other"}, ("userName",)),
        ({"role": "ROLE_ADMIN"}, ("role",)),
        ({"is_account_active": False}, ("active",)),
        ({"version": 2}, ("version",)),
        ({"user_id": "KIM"}, ("userId",)),
        ({"email": "other@example.org", "user_name": "Other"}, ("email", "userName")),
        ({"user_id": "other", "email": "other@example.org"}, ("userId", "email")),
    ],
)
def test_a_row_of_the_records_owner_with_other_fields_is_different(changed, fields):
    changed_row = replace(row(1), **changed)
    assert compare([record(1)], [changed_row]) == Comparison(different=[(record(1), changed_row, fields)])


@pytest.mark.parametrize("owner", [None, 2])
@pytest.mark.parametrize("holds", [("kim", "other@example.org"), ("other", "kim@example.org")])
def test_a_row_of_somebody_else_that_holds_one_of_its_keys_is_in_conflict(owner, holds):
    stranger = row(owner, *holds)
    assert compare([record(1)], [stranger]) == Comparison(conflicting=[(record(1), (stranger,))])


def test_two_rows_that_hold_its_keys_are_in_conflict_even_if_both_are_free_for_it():
    rows = (row(8, email="old@example.org"), row(9, user_id="old"))
    found = compare([record(1)], rows, gone=[UUID(int=8), UUID(int=9)])
    assert found == Comparison(conflicting=[(record(1), rows)])


def test_its_own_row_that_a_strangers_keeps_from_being_corrected_is_in_conflict_and_not_superfluous():
    own, stranger = row(1, "old", "old@example.org"), row(None)
    assert compare([record(1)], [own, stranger]) == Comparison(conflicting=[(record(1), (stranger,))])


def test_an_accounts_own_row_conflicts_with_a_row_without_a_record():
    own, orphan = row(1, "old", "old@example.org"), row(9)
    assert compare([record(1)], [own, orphan], gone=[UUID(int=9)]) == Comparison(
        conflicting=[(record(1), (orphan, own))]
    )


def test_a_row_without_a_record_belongs_to_the_account_with_its_user_id():
    orphan = row(9)
    assert compare([record(1)], [orphan]) == Comparison(conflicting=[(record(1), (orphan,))])
    found = compare([record(1)], [orphan], gone=[UUID(int=9)])
    assert found == Comparison(different=[(record(1), orphan, ("ownerSignupId",))])


def test_of_two_records_that_an_orphan_fits_the_one_with_its_user_id_gets_it():
    orphan = row(9, "kim", "lee@example.org")
    kim, lee = record(1, "kim", "kim@example.org"), record(2, "lee", "lee@example.org")
    found = compare([lee, kim], [orphan], gone=[UUID(int=9)])
    assert found == Comparison(missing=[lee], different=[(kim, orphan, ("email", "ownerSignupId"))])


@pytest.mark.parametrize("users", [2, 3, 5])
@pytest.mark.parametrize("key", ["user_id", "email"])
def test_users_that_exchanged_a_key_in_a_cycle_are_all_different(users, key):
    rows = [row(n, f"u{n}", f"u{n}@example.org") for n in range(1, users + 1)]
    values = [getattr(each, key) for each in rows]
    records = [
        record(n, **{"user_id": f"u{n}", "email": f"u{n}@example.org", key: values[n % users]})
        for n in range(1, users + 1)
    ]
    found = compare(records, rows)
    assert [each for each, *_ in found.different] == records
    assert not found.conflicting
    assert agrees(compare(records, heal(found, rows)))
    # Nothing of a cycle can be healed if the page does not contain all of it.
    assert [each for each, _ in compare(records[1:], rows).conflicting] == records[1:]


@pytest.mark.parametrize(
    ("becomes", "added", "vacates"),
    [
        (("new", "new@example.org"), [], False),
        (("new", "new@example.org"), [("kim", "other@example.org")], True),
        (("new", "new@example.org"), [("other", "kim@example.org")], True),
        (("kim", "kim@example.org"), [("other", "other@example.org")], False),
    ],
)
def test_a_row_gives_up_its_keys_first_only_if_another_record_needs_them(becomes, added, vacates):
    old = row(1)
    inserts = [record(number, *keys) for number, keys in enumerate(added, 2)]
    assert vacating([(record(1, *becomes), old)], inserts) == ([old] if vacates else [])


# --- As properties ------------------------------------------------------------------------------------------------

# Few of each, so that they collide.
user_ids = st.sampled_from(["kim", "KIM", "lee", "park", "choi", "ß", "ss"])
emails = st.sampled_from([f"{name}@example.org" for name in ("kim", "lee", "park", "choi")])
names = st.sampled_from(["Kim", "Lee"])
# The last two belong to no record.
owners = st.integers(1, 6).map(lambda number: UUID(int=number))
KEYS = (lambda each: each.user_id_key, lambda each: each.email)


@st.composite
def worlds(draw) -> tuple[list[UserRecord], list[Row]]:
    """Auth's records and a participant's rows, each table with its unique keys kept."""
    some_records = st.builds(
        UserRecord,
        owner_signup_id=st.integers(1, 4).map(lambda number: UUID(int=number)),
        user_id=user_ids, email=emails, user_name=names, role=st.just("ROLE_USER"),
    )  # fmt: skip
    some_rows = st.builds(Row, st.none() | owners, user_ids, emails, names)
    return (
        draw(st.lists(some_records, max_size=4, unique_by=(lambda each: each.owner_signup_id, *KEYS))),
        draw(st.lists(some_rows, max_size=6, unique_by=(lambda each: each.owner_signup_id or id(each), *KEYS))),
    )


def heal(found: Comparison, rows: list[Row]) -> list[Row]:
    """The table after each correction and addition, one by one; its unique keys must hold after every step."""
    holding = vacating([(wanted, old) for wanted, old, _ in found.different], found.missing)
    parked = {id(each): Row(None, f"parked {number}", f"parked {number}") for number, each in enumerate(holding)}
    table = [parked.get(id(each), each) for each in rows]
    check(table)
    for wanted, old, _ in found.different:
        table[table.index(parked.get(id(old), old))] = as_row(wanted)
        check(table)
    for wanted in found.missing:
        table.append(as_row(wanted))
        check(table)
    return table


def as_row(wanted: UserRecord) -> Row:
    return Row(wanted.owner_signup_id, wanted.user_id, wanted.email, wanted.user_name, wanted.role)


def check(table: list[Row]) -> None:
    for key in KEYS:
        assert len({key(each) for each in table}) == len(table)


def gone(records: list[UserRecord], rows: list[Row]) -> set[UUID]:
    return {each.owner_signup_id for each in rows if each.owner_signup_id} - {each.owner_signup_id for each in records}


@given(worlds(), st.randoms())
def test_healing_breaks_no_unique_key_in_whatever_order(world, random):
    records, rows = world
    found = compare(records, rows, gone=gone(records, rows))
    random.shuffle(found.different)
    random.shuffle(found.missing)
    heal(found, rows)


@given(worlds())
def test_every_record_agrees_or_stands_in_one_list(world):
    records, rows = world
    found = compare(records, rows)
    wrong = [*found.missing, *(each for each, *_ in found.different), *(each for each, *_ in found.conflicting)]
    unlike = [each for each in records if as_row(each) not in rows]
    assert sorted(each.owner_signup_id for each in wrong) == sorted(each.owner_signup_id for each in unlike)


@given(worlds())
def test_after_a_few_rounds_only_findings_for_a_person_are_left(world):
    records, rows = world
    for _ in range(5):
        rows = heal(compare(records, rows, gone=gone(records, rows)), rows)
    left = compare(records, rows, gone=gone(records, rows))
    assert (left.missing, left.different) == ([], [])


@given(worlds())
def test_rows_of_an_administrator_stay_as_they_are(world):
    records, rows = world
    after = heal(compare(records, rows, gone=gone(records, rows)), rows)
    assert [each for each in rows if each.owner_signup_id is None] == [
        each for each in after if each.owner_signup_id is None
    ]


@given(worlds())
def test_an_empty_table_is_filled_at_once(world):
    records, _ = world
    assert agrees(compare(records, heal(compare(records, []), [])))
