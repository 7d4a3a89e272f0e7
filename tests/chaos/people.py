"""The people who sign up in a chaos run, and the expected outcome for each."""

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from uuid import UUID


class Kind(StrEnum):
    NEW = "new to everybody"
    SAME_USER_ID = "the userId of a complete sign-up, spelled in another case"
    SAME_EMAIL = "the email of a complete sign-up"
    RIVAL = "the userId of somebody who signs up at the same moment"
    PAGE = "new to everybody, by the form and its page"
    KNOWN = "known to one participant from elsewhere"
    CHANGES = "new to everybody, and changes name and email afterwards"
    CLOSES = "new to everybody, and closes the account afterwards"


# In percent of the sign-ups. 5 are real duplicates. A rival competes with a new person, and either may win.
SHARES = {
    Kind.SAME_USER_ID: 3, Kind.SAME_EMAIL: 2, Kind.RIVAL: 4, Kind.KNOWN: 3, Kind.PAGE: 10, Kind.CHANGES: 10,
    Kind.CLOSES: 5,
}  # fmt: skip
# Kinds that repeat nobody, and that nobody repeats.
ON_THEIR_OWN = (Kind.KNOWN, Kind.PAGE, Kind.CHANGES, Kind.CLOSES)
# Sign-ups between a duplicate and the latest that it may repeat.
DISTANCE = 10


@dataclass(frozen=True, slots=True)
class Person:
    """A planned sign-up. `original` is the person whom a duplicate or a rival repeats, and `known_to` the participant
    that has a row with this person's `known_by` (userId or email) from the start.
    """

    signup_id: UUID
    kind: Kind
    user_id: str
    email: str
    user_name: str
    password: str
    original: "Person | None" = None
    known_to: str = ""
    known_by: str = ""

    @property
    def new_name(self) -> str:
        """The name that somebody who changes the account gives it."""
        return f"New {self.user_name}"

    @property
    def new_email(self) -> str:
        return f"new.{self.email}"

    @property
    def lasting(self) -> tuple[str, str]:
        """The email and the name that every service must have in the end."""
        if self.kind is Kind.CHANGES:
            return self.new_email, self.new_name
        return self.email.lower(), self.user_name

    @property
    def form(self) -> dict[str, str]:
        """The body of `POST /user`."""
        return {"userId": self.user_id, "userPw": self.password, "email": self.email, "userName": self.user_name}


def folded(user_id: str) -> str:
    """Return the form in which equal userIds are identical (docs/invariants.md, 11)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", user_id).casefold())


def crowd(count: int, random: Random) -> list[Person]:
    """The people of one run, in the order in which they come."""
    people: list[Person] = []
    originals: list[Person] = []
    for _ in range(count):
        kind = _kind(random)
        candidates = originals[-1:] if kind is Kind.RIVAL else originals[:-DISTANCE]
        original = random.choice(candidates) if candidates else None
        if kind is Kind.RIVAL and original:
            # If the userId is refused, auth does not keep the email either, so no other person may have the same one.
            originals.remove(original)
        person = _person(random, kind if original or kind in ON_THEIR_OWN else Kind.NEW, original)
        people.append(person)
        if person.kind is Kind.NEW:
            originals.append(person)
    return people


def _kind(random: Random) -> Kind:
    kinds = [*SHARES, Kind.NEW]
    return random.choices(kinds, [*SHARES.values(), 100 - sum(SHARES.values())])[0]


def _person(random: Random, kind: Kind, original: Person | None) -> Person:
    token = f"{random.getrandbits(48):012x}"
    # ß becomes ss when it is case-folded, and SS in capitals.
    user_id = random.choice(["mina", "straße", "김민아"]) + "." + token
    email = f"{token}@example.org"
    if kind in (Kind.SAME_USER_ID, Kind.RIVAL) and original:
        user_id = original.user_id.upper()
    if kind is Kind.SAME_EMAIL and original:
        email = original.email.upper()
    return Person(
        signup_id=UUID(int=random.getrandbits(128), version=4),
        kind=kind,
        user_id=user_id,
        email=email,
        user_name=f"Name {token}",
        # It shares no characters with userIds: otherwise, one in ten thousand would be refused as too similar.
        password="".join(random.choices("GHJKPQVWXYZ", k=20)),
        original=original if kind in (Kind.SAME_USER_ID, Kind.SAME_EMAIL, Kind.RIVAL) else None,
        # Their rows are inserted by SQL, which does not know the own columns of participants that are added.
        known_to=random.choice(["chat", "customer"]) if kind is Kind.KNOWN else "",
        known_by=random.choice(["userId", "email"]) if kind is Kind.KNOWN else "",
    )
