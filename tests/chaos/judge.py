"""The faults found after a run: the databases, the dead letters and each client's record are compared as sets."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple
from uuid import UUID

from tests.chaos.people import ON_THEIR_OWN, Kind, Person, folded
from tests.chaos.story import Story

Wrong = Literal["lost", "doubled", "false_red", "missed_red", "stuck"]
WRONGS: tuple[Wrong, ...] = ("lost", "doubled", "false_red", "missed_red", "stuck")


class Offence(NamedTuple):
    """`signup_id` is None if the offence is not about a single sign-up."""

    wrong: Wrong
    signup_id: UUID | None
    what: str


class SignUpRow(NamedTuple):
    id: UUID
    owner: UUID
    lights: Mapping[str, Mapping[str, Any]]
    version: int

    def status(self, service: str) -> str:
        # A light that the document omits has its default: pending.
        return str(self.lights[service].get("status", "PENDING"))


class ChangeRow(NamedTuple):
    """A change or a removal, as auth keeps it."""

    kind: str
    id: UUID
    owner: UUID
    lights: Mapping[str, Mapping[str, Any]]
    version: int


class UserRow(NamedTuple):
    """A user as auth or a participant keeps it. `made_for` is a participant's alone."""

    owner: UUID | None
    made_for: UUID | None
    user_id: str
    user_id_key: str
    email: str
    user_name: str
    role: str

    @property
    def kept(self) -> tuple[str, ...]:
        """The user's rows in every service."""
        return (self.user_id, self.user_id_key, self.email, self.user_name, self.role)


@dataclass(frozen=True)
class Evidence:
    """The state after a run. `dead` has the keys of the dead letters by topic, `kept` those that were collected, and
    `poison` those of the poison messages, by the dead-letter topic that must have them. `copies` has the users of each
    participant.
    """

    stories: Mapping[UUID, Story]
    signups: Sequence[SignUpRow]
    users: Sequence[UserRow]
    copies: Mapping[str, Sequence[UserRow]]
    poison: Mapping[str, Collection[bytes]]
    dead: Mapping[str, Sequence[bytes]]
    kept: Mapping[str, Collection[bytes]]
    changes: Sequence[ChangeRow] = ()
    # The owners of the tombstones by service.
    tombstones: Mapping[str, Collection[UUID]] = field(default_factory=dict)


def judge(evidence: Evidence) -> list[Offence]:
    """All faults; none if the product keeps its guarantees."""
    index = _Index(evidence)
    return [
        *_of_rows(evidence),
        *_of_dead_letters(evidence),
        *_of_rivals(evidence),
        *_of_changes(evidence),
        *_of_removals(evidence),
        *(offence for story in evidence.stories.values() for offence in _Case(story, index).offences()),
    ]


def _of_rows(evidence: Evidence) -> Iterator[Offence]:
    """Rows of unknown users, and duplicate rows."""
    for row in evidence.signups:
        if row.id not in evidence.stories:
            yield Offence("doubled", row.id, "a sign-up that no client made")
    for owner in _more_than_once(user.owner for user in evidence.users):
        yield Offence("doubled", owner, "two users of auth for one sign-up")
    owners = {user.owner for user in evidence.users}
    for owner in owners - evidence.stories.keys():
        yield Offence("doubled", owner, "a user of auth whom no client made")
    for service, copies in evidence.copies.items():
        made = [copy for copy in copies if copy.owner is not None]
        for what in ("owner", "made_for"):
            for signup_id in _more_than_once(getattr(copy, what) for copy in made):
                yield Offence("doubled", signup_id, f"two rows of {service} have this {what}")
        for copy in made:
            if copy.owner not in owners:
                yield Offence("doubled", copy.owner, f"{service} has a user whom auth does not have")


def _of_dead_letters(evidence: Evidence) -> Iterator[Offence]:
    for topic, keys in evidence.poison.items():
        dead = set(evidence.dead[topic])
        for key in sorted(set(keys) - dead):
            yield Offence("lost", None, f"{key!r} is not in {topic}")
        for key in sorted(dead - set(keys)):
            yield Offence("lost", None, f"a good message of {key.decode(errors='replace')} is in {topic}")
        for key in sorted(dead - set(evidence.kept[topic])):
            yield Offence("lost", None, f"{key!r} of {topic} was not collected")


def _of_changes(evidence: Evidence) -> Iterator[Offence]:
    """Every light of a change or removal is green; a removal may end the account's earlier changes."""
    removed = {row.owner for row in evidence.changes if row.kind == "removal"}
    for row in evidence.changes:
        for service, light in row.lights.items():
            status = light.get("status", "PENDING")
            if status == "PENDING":
                yield Offence("stuck", row.owner, f"{service} is orange for a {row.kind}")
            elif status == "FAIL" and (row.kind == "removal" or row.owner not in removed):
                yield Offence("false_red", row.owner, f"{service} is red for a {row.kind}: {light.get('reason')}")


def _of_removals(evidence: Evidence) -> Iterator[Offence]:
    """Closed accounts exist in no service, and no other account was removed."""
    closed = {story.person.signup_id for story in evidence.stories.values() if story.person.kind is Kind.CLOSES}
    for service, rows in {"auth": evidence.users, **evidence.copies}.items():
        for row in rows:
            if row.owner in closed or row.made_for in closed:
                yield Offence("doubled", row.owner, f"{service} still has the removed user {row.user_id}")
        if service in evidence.tombstones:
            tombstones = set(evidence.tombstones[service])
            for owner in closed - tombstones:
                yield Offence("lost", owner, f"{service} has no tombstone")
            for owner in tombstones - closed:
                yield Offence("lost", owner, f"{service} removed somebody who did not ask for it")


def _of_rivals(evidence: Evidence) -> Iterator[Offence]:
    """Of two concurrent sign-ups with one userId, auth accepts one."""
    auth = {row.id: row.status("auth") for row in evidence.signups}
    for story in evidence.stories.values():
        person = story.person
        if person.kind is Kind.RIVAL and person.original:
            verdicts = {auth.get(person.signup_id), auth.get(person.original.signup_id)}
            if verdicts == {"SUCCESS"}:
                yield Offence("missed_red", person.signup_id, "auth took both rivals")
            elif verdicts == {"FAIL"}:
                yield Offence("false_red", person.signup_id, "auth refused both rivals")


class _Case:
    """One sign-up: its row, auth's record, the copies of that, and what its client saw."""

    def __init__(self, story: Story, index: "_Index") -> None:
        self.story = story
        self.person: Person = story.person
        self.row = index.signups.get(self.person.signup_id)
        self.record = index.users.get(self.row.owner) if self.row else None
        self._index = index

    def offences(self) -> Iterator[Offence]:
        for wrong, what in self._all():
            yield Offence(wrong, self.person.signup_id, what)

    def _all(self) -> Iterator[tuple[Wrong, str]]:
        for what in self.story.unexpected:
            yield "stuck", what
        if self.row is None:
            if self.story.is_accepted:
                yield "lost", "auth accepted it and has no row"
            else:
                yield "stuck", "its client never got through"
            return
        if self.person.kind is Kind.CLOSES:
            # The lights of the sign-up were decided before; the rest is judged for all removals together.
            return
        yield from self._of_auth(self.row)
        for service in self._index.participants:
            yield from self._of_participant(service, self.row)
        yield from self._of_stream(self.row)

    def _of_auth(self, row: SignUpRow) -> Iterator[tuple[Wrong, str]]:
        status = row.status("auth")
        is_duplicate = self.person.kind in (Kind.SAME_USER_ID, Kind.SAME_EMAIL)
        if status == "PENDING":
            yield "stuck", "auth's own light is orange"
        elif is_duplicate and status == "SUCCESS":
            yield "missed_red", "auth took a duplicate"
        elif self.person.kind in (Kind.NEW, *ON_THEIR_OWN) and status == "FAIL" and not self._has_rival:
            yield "false_red", f"auth refused somebody new: {row.lights['auth'].get('reason')}"
        if self.record is None:
            yield "lost", "its user is not in auth"
        elif (status == "SUCCESS") != (row.owner == row.id):
            yield "doubled", f"auth's light is {status}, and the owner of the record is {row.owner}"
        elif status == "SUCCESS" and (self.record.user_id_key, self.record.email, self.record.user_name) != (
            folded(self.person.user_id),
            *self.person.lasting,
        ):
            yield "lost", f"auth keeps something else: {self.record}"

    def _of_participant(self, service: str, row: SignUpRow) -> Iterator[tuple[Wrong, str]]:
        if self.record is None:
            return
        status = row.status(service)
        copies = self._index.copies_of(service, self.record)
        if status == "PENDING":
            yield "stuck", f"{service} is orange"
        if not copies:
            yield "lost", f"{service} does not have the user"
            return
        if any(copy.owner is None for copy in copies):  # made before the run
            if status == "SUCCESS":
                yield "missed_red", f"{service} is green, though it knew the user from elsewhere"
            if len(copies) > 1:
                yield "doubled", f"{service} has the user it knew, and one more"
            return
        if len(copies) > 1 or copies[0].owner != row.owner or copies[0].kept != self.record.kept:
            yield "lost", f"{service} keeps something else: {copies}"
        is_green = self.row is not None and (row.owner == row.id or copies[0].made_for == row.id)
        if status == "FAIL" and is_green:
            yield "false_red", f"{service} is red ({row.lights[service].get('reason')}), and had not known the user"
        if status == "SUCCESS" and not is_green:
            yield "missed_red", f"{service} is green, and had the user already"

    def _of_stream(self, row: SignUpRow) -> Iterator[tuple[Wrong, str]]:
        states = self.story.states
        if self.story.ended is None or not states or not states[-1]["complete"]:
            yield "stuck", "its stream did not end"
        else:
            shown = {service: light["status"] for service, light in states[-1]["services"].items()}
            if shown != {service: row.status(service) for service in row.lights}:
                yield "stuck", f"its stream ended in what is not true: {shown}"
            if states[-1]["version"] != row.version:
                yield "stuck", f"its stream ended in version {states[-1]['version']} of {row.version}"
        for earlier, later in pairwise(states):
            if later["version"] <= earlier["version"]:
                yield "doubled", f"version {later['version']} came after {earlier['version']}"
            for service, light in earlier["services"].items():
                if light["status"] not in ("PENDING", later["services"][service]["status"]):
                    yield "doubled", f"the light of {service} moved twice"

    @property
    def _has_rival(self) -> bool:
        return self.person.signup_id in self._index.with_rival


class _Index:
    """The evidence by its keys."""

    def __init__(self, evidence: Evidence) -> None:
        self.signups = {row.id: row for row in evidence.signups}
        self.users = {user.owner: user for user in evidence.users}
        self.participants = evidence.copies.keys()
        people = [story.person for story in evidence.stories.values()]
        self.with_rival = {each.original.signup_id for each in people if each.kind is Kind.RIVAL and each.original}
        self._copies: dict[tuple[str, str], set[UserRow]] = defaultdict(set)
        for service, copies in evidence.copies.items():
            for copy in copies:
                self._copies[service, copy.user_id_key].add(copy)
                self._copies[service, copy.email].add(copy)

    def copies_of(self, service: str, record: UserRow) -> list[UserRow]:
        """The rows that hold the record's userId or email."""
        return list(self._copies[service, record.user_id_key] | self._copies[service, record.email])


def _more_than_once(values: Iterable[Any]) -> list[Any]:
    return [value for value, times in Counter(values).items() if times > 1]
