"""The checks of an import's records: the rules of `POST /user`, hashes, and duplicates within the file."""

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from authsvc.accounts.passwords import Argon2idHasher
from authsvc.api.problems import Problem
from authsvc.api.signup_requests import read_signup
from authsvc.signups.registration import NewSignUp
from authsvc.user_import.checks import RejectedError, check_record, derived_signup_id
from authsvc.user_import.formats import ImportRecord, format_of
from authsvc.user_import.importing import UserImport
from authsvc.user_import.rejects import Rejects
from authsvc.user_import.spool import Spool
from authsvc.user_import.text_lines import LineReader

KIM = {"userId": "kim", "userName": "Kim", "email": "kim@example.org"}


def checked(*, may_add_admins: bool = False, **fields: Any) -> NewSignUp:
    document = KIM | fields
    return check_record(ImportRecord(1, document, document), may_add_admins=may_add_admins)


def refusal(**fields: Any) -> str:
    with pytest.raises(RejectedError) as refused:
        checked(**fields)
    return str(refused.value)


def hash_of(*, memory: int = 19_456, passes: int = 2, lanes: int = 1) -> str:
    hasher = Argon2idHasher()
    hasher.memory_cost, hasher.time_cost, hasher.parallelism = memory, passes, lanes
    return hasher.encode("correct horse 9", hasher.salt())


def test_fields_are_normalised_as_by_the_api():
    new = checked(userId="ｋｉｍ", userName=" Kim ", email=" KIM@bücher.example ")
    assert (new.user_id, new.user_name, new.email, new.role) == ("kim", "Kim", "kim@xn--bcher-kva.example", "ROLE_USER")


@pytest.mark.parametrize(
    "fields",
    [
        {"userId": "administrator"},
        {"userId": "аdministrator"},
        {"userId": "k\x00m"},
        {"userId": "k" * 33},
        {"userId": "\u0301" * 2000},
        {"userId": "k" * 3000},
        {"userName": ""},
        {"userName": "Kim\nMina"},
        {"userName": "Kim\u200bMina"},
        {"userName": "\ud800"},
        {"userName": 7},
        {"email": "kim"},
        {"email": None},
        {"role": "ROLE_ROOT"},
        {"userPw": "correct horse 9"},
    ],
    ids=ascii,
)
def test_records_that_the_api_would_refuse_are_refused_with_the_same_messages(fields: dict[str, Any]):
    password = {} if "userPw" in fields else {"userPw": "correct horse 9"}
    if "userPw" in fields:
        # An import does not accept the API's field, because a file should not contain plain-text passwords.
        assert refusal(**fields) == "userPw: Unknown field."
        return
    with pytest.raises(Problem) as refused:
        read_signup(KIM | password | fields)
    assert [f"{error.pointer[1:]}: {error.detail}" for error in refused.value.errors] == [refusal(**fields)]


def test_every_fault_of_a_line_is_named():
    said = refusal(userId="", email="kim", role="x", passwordHash="x")
    assert all(name in said for name in ("userId: ", "email: ", "role: ", "passwordHash: "))


@pytest.mark.parametrize("name", ["role", "passwordHash"])
@pytest.mark.parametrize("value", ["", None])
def test_an_optional_field_may_be_empty(name: str, value: Any):
    assert checked(**{name: value}) == checked()


def test_an_administrators_line_needs_the_option_on_behalf_of():
    assert refusal(role="ROLE_ADMIN") == "role: ROLE_ADMIN needs --on-behalf-of."
    assert checked(role="ROLE_ADMIN", may_add_admins=True).role == "ROLE_ADMIN"


# --- Hashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "costs", [{}, {"memory": 47_104, "passes": 1}, {"memory": 102_400, "passes": 2, "lanes": 8}], ids=str
)
def test_a_hash_with_good_costs_is_taken_unchanged(costs: dict[str, int]):
    encoded = hash_of(**costs)
    assert checked(passwordHash=encoded).password == encoded
    assert encoded not in repr(checked(passwordHash=encoded))


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        ("correct horse 9", "not a hash of an algorithm in use"),
        ("pbkdf2_sha256$600000$salt$aGFzaA==", "not a hash of an algorithm in use"),
        ("md5$salt$0cc175b9c0f1b6a831c399e269772661", "not a hash of an algorithm in use"),
        ("!unusable", "not a hash of an algorithm in use"),
        ("argon2$", "not an argon2id hash"),
        ("argon2$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Ng", "not an argon2id hash"),
        ("argon2$argon2id$v=16$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Ng", "not an argon2id hash"),
        ("argon2$argon2id$v=19$m=19456,t=2,p=1$????????????$MTIzNDU2Nzg5MDEyMzQ1Ng", "not an argon2id hash"),
        # The last character has bits beyond the last byte.
        ("argon2$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Nh", "not an argon2id hash"),
        ("argon2$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$" + "A" * 100, "not an argon2id hash"),
        ("argon2$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Ng", "too cheap to crack"),
        ("argon2$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Ng", "too much memory or time"),
        ("argon2$argon2id$v=19$m=19456,t=999,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Ng", "too much memory or time"),
        ("argon2$argon2id$v=19$m=19456,t=2,p=200$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Ng", "too much memory or time"),
        ("argon2$argon2id$v=19$m=19456,t=2,p=0$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Ng", "too much memory or time"),
    ],
)
def test_any_other_hash_is_refused(encoded: str, words: str):
    assert words in refusal(passwordHash=encoded)


# --- The same line --------------------------------------------------------------------------------------------------


def test_the_same_fields_have_the_same_id_however_they_are_spelt():
    assert checked().signup_id == checked(userId="KIM", userName=" Kim", email="KIM@example.org").signup_id
    assert checked().signup_id == checked(passwordHash=hash_of()).signup_id


@pytest.mark.parametrize("field", ["userId", "userName", "email", "role"])
def test_a_changed_field_makes_another_id(field: str):
    changed = {"userId": "lee", "userName": "Lee", "email": "lee@example.org", "role": "ROLE_ADMIN"}[field]
    assert checked(**{field: changed}, may_add_admins=True).signup_id != checked().signup_id


def test_nobody_without_the_secret_key_can_compute_an_id(settings):
    before = checked().signup_id
    settings.SECRET_KEY = "another key"
    assert checked().signup_id != before


def test_fields_cannot_be_shifted_into_each_other():
    one = {"userId": "kim", "email": "a", "userName": "b", "role": "c"}
    assert derived_signup_id(one) != derived_signup_id(one | {"email": "ab", "userName": ""})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"userId": "KIM", "email": "other@example.org"}, "userId: Line 2 has the same one."),
        ({"userId": "lee"}, "email: Line 2 has the same one."),
        ({"userName": "Other"}, "userId: Line 2 has the same one."),
        ({"passwordHash": hash_of()}, "passwordHash: Line 2 has the same user with another one."),
    ],
    ids=["userId", "email", "userName", "passwordHash"],
)
def test_a_duplicate_within_the_file_names_the_earlier_line(fields: dict[str, Any], words: str):
    with Spool() as spool:
        assert spool.add(2, checked())
        with pytest.raises(RejectedError) as refused:
            spool.add(3, checked(**fields))
        assert str(refused.value) == words
        assert spool.count == 1


def test_a_repeated_line_is_kept_once_and_the_order_stays():
    everyone = [checked(userId=f"user-{n}", email=f"user-{n}@example.org") for n in (3, 1, 2)]
    with Spool() as spool:
        assert [spool.add(line, new) for line, new in enumerate([*everyone, everyone[0]], 2)] == [True] * 3 + [False]
        assert [len(batch) for batch in spool.batches(2)] == [2, 1]
        assert [new for batch in spool.batches(2) for new in batch] == everyone


# --- Memory -----------------------------------------------------------------------------------------------------------


def lines_of(count: int) -> Iterator[bytes]:
    """A file of so many users, of whom one percent are invalid."""
    yield b"userId,userName,email\n"
    for n in range(count):
        yield f"user-{n},User {n},{'bad' if n % 100 == 0 else f'user-{n}@example.org'}\n".encode()


def peak_of_checking(count: int, rejected: Path) -> int:
    """The highest number of bytes that Python needs for checking so many lines."""

    class Lines:
        """A generated file that is never in memory."""

        def __init__(self) -> None:
            self._lines = lines_of(count)

        def readline(self, most: int) -> bytes:
            return next(self._lines, b"")

    format_ = format_of(LineReader(Lines()))  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        with Spool() as spool, closing(Rejects(rejected, format_)) as rejects:
            users = UserImport(format_, spool, rejects, may_add_admins=False)
            assert sum(counts.rejected for counts in users.check()) == count / 100
            assert sum(map(len, spool.batches(500))) == count * 99 / 100
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_eight_times_as_many_lines_need_no_more_memory(tmp_path: Path):
    peak_of_checking(100, tmp_path / "warm-up.csv")
    few = peak_of_checking(1_000, tmp_path / "few.csv")
    assert peak_of_checking(8_000, tmp_path / "many.csv") < few * 1.1
