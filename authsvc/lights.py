"""A sign-up's lights: pure values, without a database or a network."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from livesettings.values import live

# The name of auth's own light.
AUTH: Final = "auth"
# Characters: PostgreSQL indexes texts of 2,700 bytes at most, and a character has up to 4.
FAILURES_MAX: Final = 600


class Status(StrEnum):
    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"


class Light(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One service's status. `version` is the version of the sign-up in which it got this status."""

    status: Status = Status.PENDING
    version: int = 1
    reason: str | None = None
    decided_at: datetime | None = None


class Verdict(msgspec.Struct, frozen=True):
    """A service's final answer to one sign-up."""

    service: str
    status: Status
    reason: str | None = None


class SignUpState(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What is shown of one sign-up, whole. `version` rises with each transaction that decides a light; that all tries
    are used up decides none, and raises none (docs/adr/0024)."""

    signup_id: UUID
    started_at: datetime
    version: int
    lights: dict[str, Light]
    is_stalled: bool = False
    # Whether the person has yet to confirm the address; every light is pending until then.
    is_unconfirmed: bool = False

    @classmethod
    def awaiting_confirmation(cls, signup_id: UUID, *, started_at: datetime, services: Iterable[str]) -> "SignUpState":
        begun = cls.all_pending(signup_id, started_at=started_at, services=services)
        return msgspec.structs.replace(begun, is_unconfirmed=True)

    @classmethod
    def all_pending(cls, signup_id: UUID, *, started_at: datetime, services: Iterable[str]) -> "SignUpState":
        return cls(signup_id=signup_id, started_at=started_at, version=1, lights={name: Light() for name in services})

    @property
    def pending(self) -> list[str]:
        return [name for name, light in self.lights.items() if light.status is Status.PENDING]

    @property
    def failed(self) -> list[str]:
        return [name for name, light in self.lights.items() if light.status is Status.FAIL]

    @property
    def failures(self) -> str:
        """What failed, a line `service: reason` for each red light, cut to FAILURES_MAX: equal for equal failures."""
        reasons = ((name, " ".join((self.lights[name].reason or "").split())) for name in self.failed)
        return "\n".join(": ".join(filter(None, line)) for line in reasons)[:FAILURES_MAX]

    @property
    def is_complete(self) -> bool:
        return not self.pending

    def decided(self, verdicts: Iterable[Verdict], *, at: datetime) -> "SignUpState":
        """The state after these verdicts: a light only moves from pending to its verdict, all in one new version.

        Returns the same object where nothing changes. A verdict for a service that the sign-up does not name is a
        KeyError: the caller tells it apart before.
        """
        lights = dict(self.lights)
        version = self.version + 1
        for verdict in verdicts:
            if lights[verdict.service].status is Status.PENDING:
                lights[verdict.service] = Light(
                    status=verdict.status, version=version, reason=self._reason(verdict), decided_at=at
                )
        if lights == self.lights:
            return self
        return msgspec.structs.replace(self, version=version, lights=lights)

    def asking(self, service: str) -> "SignUpState":
        """The state in which one more service is asked: its light is added, pending, in a new version."""
        version = self.version + 1
        return msgspec.structs.replace(self, version=version, lights=self.lights | {service: Light(version=version)})

    def _reason(self, verdict: Verdict) -> str | None:
        """Where auth refused, a participant was asked about auth's record, not about what was typed: auth's reason
        is the one that means something to the person."""
        refused = self.lights.get("auth")
        if verdict.status is Status.FAIL and refused is not None and refused.status is Status.FAIL:
            return refused.reason
        return verdict.reason

    def changed_since(self, version: int) -> list[str]:
        """The services whose light a reader of that version has not seen; 0 is a reader who has seen nothing."""
        return [name for name, light in self.lights.items() if light.version > version]

    def as_wire(self, *, with_took: bool = False) -> dict[str, Any]:
        """The state of the HTTP contract, without reasons where the live settings say so; with how long each light
        took for who asked for it."""
        services: dict[str, dict[str, str]] = {}
        for name, light in self.lights.items():
            services[name] = {"status": light.status.value}
            if light.reason is not None and live.SIGNUP_REASONS:
                services[name]["reason"] = light.reason
        document: dict[str, Any] = {
            "signupId": str(self.signup_id),
            "version": self.version,
            "complete": self.is_complete,
            "services": services,
        }
        if with_took and (took := self._took()):
            document["took"] = took
        if self.is_stalled and not self.is_complete:
            document["stalled"] = True
        if self.is_unconfirmed:
            document["awaiting"] = "confirmation"
        return document

    def _took(self) -> dict[str, int]:
        """Milliseconds from the beginning until each decided light."""
        return {
            name: max(0, int((light.decided_at - self.started_at).total_seconds() * 1000))
            for name, light in self.lights.items()
            if light.decided_at is not None
        }


class Decisions(msgspec.Struct, frozen=True):
    """What one transaction decided: the sign-ups by service and status, and those that became complete, with when."""

    lights: Mapping[tuple[str, str], Sequence[UUID]]
    complete: Sequence[tuple[SignUpState, datetime]]


def decisions_in(states: Iterable[SignUpState], *, since: datetime | None = None) -> Decisions:
    """What of these states was decided since then; without it, all that is."""
    lights: dict[tuple[str, str], list[UUID]] = {}
    complete = []
    for state in states:
        times = [light.decided_at for light in state.lights.values() if light.decided_at is not None]
        last = max(times, default=None)
        if last is None or (since is not None and last < since):
            continue
        for service, light in state.lights.items():
            if light.decided_at is not None and (since is None or light.decided_at >= since):
                lights.setdefault((service, light.status.value), []).append(state.signup_id)
        if len(times) == len(state.lights):
            complete.append((state, last))
    return Decisions(lights, complete)


def lights_from_document(document: Mapping[str, Any]) -> dict[str, Light]:
    """The lights kept in the sign-up's JSON column."""
    return msgspec.convert(document, dict[str, Light])


def lights_as_document(lights: Mapping[str, Light]) -> dict[str, Any]:
    """What the sign-up's JSON column keeps of the lights."""
    document: dict[str, Any] = msgspec.to_builtins(lights)
    return document
