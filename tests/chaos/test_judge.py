"""The judge detects every kind of error, so a run without errors has really been checked."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.chaos.judge import ChangeRow, Evidence, SignUpRow, UserRow, judge
from tests.chaos.people import Kind, Person, folded
from tests.chaos.story import Story

OWNER, DUPLICATE, KNOWN = UUID(int=1), UUID(int=2), UUID(int=3)
GREEN = {"auth": "SUCCESS", "chat": "SUCCESS", "customer": "SUCCESS"}
RED = dict.fromkeys(GREEN, "FAIL")
PREFIX = "user.newUser.res.auth.dlt"


def person(signup_id: UUID, kind: Kind, original: Person | None = None) -> Person:
    name = f"p{(original.signup_id if original else signup_id).int}"
    return Person(signup_id, kind, name, f"{signup_id.int}@example.org", "Name", "password", original)


def story(who: Person, lights: Mapping[str, str]) -> Story:
    told = Story(who, run_began=time.monotonic(), is_accepted=True, ended=1.0)
    begun = dict.fromkeys(lights, "PENDING")
    for version, shown in enumerate([begun, begun | {"auth": lights["auth"]}, lights], start=1):
        told.see({"version": version, "complete": version == 3, "services": _document(shown)})
    return told


def user(who: Person, *, owner: UUID | None, made_for: UUID | None = None) -> UserRow:
    return UserRow(owner, made_for, who.user_id, folded(who.user_id), who.email, who.user_name, "ROLE_USER")


def _document(lights: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {service: {"status": status} for service, status in lights.items()}


def row(signup_id: UUID, owner: UUID, lights: Mapping[str, str], version: int = 3) -> SignUpRow:
    return SignUpRow(signup_id, owner, _document(lights), version)


@pytest.fixture
def good() -> Evidence:
    """A new user, a duplicate of that user, and a user that chat already had."""
    owner, known = person(OWNER, Kind.NEW), person(KNOWN, Kind.KNOWN)
    duplicate = person(DUPLICATE, Kind.SAME_USER_ID, owner)
    lights = {OWNER: GREEN, DUPLICATE: RED, KNOWN: GREEN | {"chat": "FAIL"}}
    copies = [user(owner, owner=OWNER, made_for=OWNER)]
    return Evidence(
        stories={each.signup_id: story(each, lights[each.signup_id]) for each in (owner, duplicate, known)},
        signups=[row(OWNER, OWNER, GREEN), row(DUPLICATE, OWNER, RED), row(KNOWN, KNOWN, lights[KNOWN])],
        users=[user(owner, owner=OWNER), user(known, owner=KNOWN)],
        copies={
            "chat": [*copies, user(known, owner=None)],
            "customer": [*copies, user(known, owner=KNOWN, made_for=KNOWN)],
        },
        poison={PREFIX: {b"poison-0"}},
        dead={PREFIX: [b"poison-0", b"poison-0"]},
        kept={PREFIX: {b"poison-0"}},
    )


def test_a_correct_run_has_no_offences(good: Evidence):
    assert judge(good) == []


def with_removal(evidence: Evidence, **changes: Any) -> Evidence:
    """Somebody new has closed the account since, and is gone everywhere."""
    told = evidence.stories[OWNER]
    closed = replace(told, person=replace(told.person, kind=Kind.CLOSES))
    values: dict[str, Any] = {
        "stories": {OWNER: closed, KNOWN: evidence.stories[KNOWN]},
        "signups": [row for row in evidence.signups if row.id != DUPLICATE],
        "users": [user for user in evidence.users if user.owner != OWNER],
        "copies": {name: [row for row in rows if row.owner != OWNER] for name, rows in evidence.copies.items()},
        "changes": [ChangeRow("removal", UUID(int=9), OWNER, _document(GREEN), 3)],
        "tombstones": {service: {OWNER} for service in GREEN},
    }
    return replace(evidence, **{**values, **changes})


def test_a_removal_that_every_service_applied_is_no_offence(good: Evidence):
    assert judge(with_removal(good)) == []


def test_removals_and_changes_that_a_service_did_not_apply_are_offences(good: Evidence):
    def wrongs(**changes: Any) -> set[tuple[str, UUID | None]]:
        return {(each.wrong, each.signup_id) for each in judge(with_removal(good, **changes))}

    assert wrongs(users=good.users) == {("doubled", OWNER)}
    assert wrongs(tombstones={"chat": set()}) == {("lost", OWNER)}
    assert wrongs(tombstones={"chat": {OWNER, KNOWN}}) == {("lost", KNOWN)}
    assert ("doubled", OWNER) in wrongs(copies=good.copies)
    orange = {**_document(GREEN), "chat": {}}
    assert wrongs(changes=[ChangeRow("removal", UUID(int=9), OWNER, orange, 2)]) == {("stuck", OWNER)}
    red = {**_document(GREEN), "chat": {"status": "FAIL", "reason": "removed"}}
    assert wrongs(changes=[ChangeRow("change", UUID(int=9), KNOWN, red, 3)]) == {("false_red", KNOWN)}
    removal = ChangeRow("removal", UUID(int=9), OWNER, _document(GREEN), 3)
    assert wrongs(changes=[ChangeRow("change", UUID(int=8), OWNER, red, 3), removal]) == set()


def test_a_change_that_a_service_missed_is_an_offence(good: Evidence):
    told = good.stories[OWNER]
    changed = replace(told, person=replace(told.person, kind=Kind.CHANGES))
    stories = {OWNER: changed, KNOWN: good.stories[KNOWN]}
    evidence = replace(good, stories=stories, signups=[row for row in good.signups if row.id != DUPLICATE])
    assert {(each.wrong, each.signup_id) for each in judge(evidence)} == {("lost", OWNER)}
    new = {"email": changed.person.new_email, "user_name": changed.person.new_name}
    evidence = replace(
        evidence,
        users=[each._replace(**new) if each.owner == OWNER else each for each in evidence.users],
        copies={
            name: [each._replace(**new) if each.owner == OWNER else each for each in rows]
            for name, rows in evidence.copies.items()
        },
    )
    assert judge(evidence) == []


def with_signup(evidence: Evidence, new: SignUpRow) -> Evidence:
    return replace(evidence, signups=[new if each.id == new.id else each for each in evidence.signups])


def with_copies(evidence: Evidence, service: str, change: Callable[[list[UserRow]], list[UserRow]]) -> Evidence:
    return replace(evidence, copies={**evidence.copies, service: change(list(evidence.copies[service]))})


def with_states(evidence: Evidence, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Evidence:
    told = evidence.stories[OWNER]
    return replace(evidence, stories={**evidence.stories, OWNER: replace(told, states=change(told.states))})


BROKEN: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "no row of a sign-up": ("lost", lambda e: replace(e, signups=e.signups[:2])),
    "no user in auth": ("lost", lambda e: replace(e, users=e.users[:1])),
    "no copy in chat": ("lost", lambda e: with_copies(e, "chat", lambda rows: rows[1:])),
    "another copy in chat": (
        "lost",
        lambda e: with_copies(e, "chat", lambda rows: [rows[0]._replace(user_name="Else"), rows[1]]),
    ),
    "poison that is nowhere": ("lost", lambda e: replace(e, dead={PREFIX: []})),
    "a dead-lettered good message": ("lost", lambda e: replace(e, dead={PREFIX: [b"poison-0", b"p1"]})),
    "a letter that was not collected": ("lost", lambda e: replace(e, kept={PREFIX: set()})),
    "a row twice": ("doubled", lambda e: with_copies(e, "customer", lambda rows: [*rows, rows[0]._replace(email="e")])),
    "a stranger's row": (
        "doubled",
        lambda e: with_copies(e, "chat", lambda rows: [*rows, rows[0]._replace(owner=uuid4(), user_id_key="k")]),
    ),
    "a sign-up of nobody": ("doubled", lambda e: replace(e, signups=[*e.signups, row(uuid4(), OWNER, RED)])),
    "a version again": ("doubled", lambda e: with_states(e, lambda states: [states[0], *states])),
    "a light that moved twice": (
        "doubled",
        lambda e: with_states(e, lambda s: [s[0], {**s[1], "services": _document(RED)}, s[2]]),
    ),
    "the owner red in chat": ("false_red", lambda e: with_signup(e, row(OWNER, OWNER, GREEN | {"chat": "FAIL"}))),
    "somebody new refused": ("false_red", lambda e: with_signup(e, row(OWNER, OWNER, GREEN | {"auth": "FAIL"}))),
    "a duplicate taken": ("missed_red", lambda e: with_signup(e, row(DUPLICATE, OWNER, RED | {"auth": "SUCCESS"}))),
    "a duplicate green in chat": (
        "missed_red",
        lambda e: with_signup(e, row(DUPLICATE, OWNER, RED | {"chat": "SUCCESS"})),
    ),
    "green in chat, which knew the user": ("missed_red", lambda e: with_signup(e, row(KNOWN, KNOWN, GREEN))),
    "an orange light": ("stuck", lambda e: with_signup(e, row(OWNER, OWNER, GREEN | {"chat": "PENDING"}))),
    "a stream without an end": ("stuck", lambda e: with_states(e, lambda states: states[:2])),
    "a stream that ended in an older version": ("stuck", lambda e: with_signup(e, row(OWNER, OWNER, GREEN, version=4))),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_each_planted_fault_is_found(good: Evidence, broken: str):
    wrong, breaking = BROKEN[broken]
    assert wrong in {offence.wrong for offence in judge(breaking(good))}
