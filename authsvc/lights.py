"""The lights of an event transaction (a sign-up, a change or a removal): pure values and rules, without database or
network access."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec
from django.conf import settings

from livesettings.values import live

# The name of auth's own light.
AUTH: Final = "auth"
# The reason of a light that an account's removal decided: the service was never asked, or is not asked any more.
REMOVED_REASON: Final = "removed"
# Characters. PostgreSQL indexes at most 2,700 bytes, and a character takes up to 4 bytes.
FAILURES_MAX: Final = 600


def participants() -> list[str]:
    """The services besides auth that store each user, in the order of their lights."""
    return [service for service in settings.SIGNUP_SERVICES if service != AUTH]


class Kind(StrEnum):
    """The kinds of event transactions."""

    SIGNUP = "signUp"
    CHANGE = "change"
    REMOVAL = "removal"


class Status(StrEnum):
    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"


class Light(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The status of one service. `version` is the transaction's version in which the light got this status."""

    status: Status = Status.PENDING
    version: int = 1
    reason: str | None = None
    decided_at: datetime | None = None


class Verdict(msgspec.Struct, frozen=True):
    """A service's final answer to one event transaction."""

    service: str
    status: Status
    reason: str | None = None


class TransactionState(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The complete visible state of one event transaction. `version` increases with each database transaction that
    decides a light. Becoming stalled decides no light and doesn't increase it (docs/adr/0024)."""

    # The name in Redis is that of the previous release, which may still run during an upgrade.
    transaction_id: UUID = msgspec.field(name="signupId")
    started_at: datetime
    version: int
    lights: dict[str, Light]
    kind: Kind = Kind.SIGNUP
    is_stalled: bool = False
    # Whether the email address still awaits confirmation; until then every light is pending.
    is_unconfirmed: bool = False

    @classmethod
    def all_pending(
        cls, transaction_id: UUID, *, started_at: datetime, services: Iterable[str], kind: Kind = Kind.SIGNUP
    ) -> "TransactionState":
        lights = {name: Light() for name in services}
        return cls(transaction_id=transaction_id, started_at=started_at, version=1, lights=lights, kind=kind)

    @property
    def pending(self) -> list[str]:
        return [name for name, light in self.lights.items() if light.status is Status.PENDING]

    @property
    def failed(self) -> list[str]:
        return [name for name, light in self.lights.items() if light.status is Status.FAIL]

    @property
    def failures(self) -> str:
        """One line `service: reason` per red light, cut to FAILURES_MAX. Equal failures give equal texts."""
        reasons = ((name, " ".join((self.lights[name].reason or "").split())) for name in self.failed)
        return "\n".join(": ".join(filter(None, line)) for line in reasons)[:FAILURES_MAX]

    @property
    def is_complete(self) -> bool:
        return not self.pending

    def decided(self, verdicts: Iterable[Verdict], *, at: datetime) -> "TransactionState":
        """Return the state after these verdicts. A light only ever changes from pending to its verdict; all changes
        share one new version.

        Return the same object if nothing changes. Raise KeyError for a service without a light here, so
        the caller filters such verdicts out.
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

    def superseded(self, *, at: datetime) -> "TransactionState":
        """Return the state after the account's removal: no service can be asked about this transaction any more."""
        return self.decided((Verdict(service, Status.FAIL, REMOVED_REASON) for service in self.pending), at=at)

    def asking(self, service: str) -> "TransactionState":
        """Return the state with a pending light for one more service, in a new version."""
        version = self.version + 1
        return msgspec.structs.replace(self, version=version, lights=self.lights | {service: Light(version=version)})

    def _reason(self, verdict: Verdict) -> str | None:
        """Return the reason to show for this verdict. After a refusal by auth, participants were asked about the
        existing user instead of the submitted fields, so only auth's reason makes sense to the person."""
        refused = self.lights.get(AUTH)
        if verdict.status is Status.FAIL and refused is not None and refused.status is Status.FAIL:
            return refused.reason
        return verdict.reason

    def changed_since(self, version: int) -> list[str]:
        """Return the services whose lights changed after `version`; 0 stands for a reader who has seen nothing."""
        return [name for name, light in self.lights.items() if light.version > version]

    def as_wire(self, *, with_took: bool = False) -> dict[str, Any]:
        """Return the state as a JSON document of the HTTP contract. The live setting SIGNUP_REASONS controls whether
        it includes reasons; `with_took` adds how long each light took."""
        services: dict[str, dict[str, str]] = {}
        for name, light in self.lights.items():
            services[name] = {"status": light.status.value}
            if light.reason is not None and live.SIGNUP_REASONS:
                services[name]["reason"] = light.reason
        document: dict[str, Any] = {
            "signupId" if self.kind is Kind.SIGNUP else "changeId": str(self.transaction_id),
            "version": self.version,
            "complete": self.is_complete,
            "services": services,
        }
        if self.kind is not Kind.SIGNUP:
            document["kind"] = self.kind.value
        if with_took and (took := self._took()):
            document["took"] = took
        if self.is_stalled and not self.is_complete:
            document["stalled"] = True
        if self.is_unconfirmed:
            document["awaiting"] = "confirmation"
        return document

    def _took(self) -> dict[str, int]:
        """Return the milliseconds from the start of the transaction to each decided light."""
        return {
            name: max(0, int((light.decided_at - self.started_at).total_seconds() * 1000))
            for name, light in self.lights.items()
            if light.decided_at is not None
        }


class DecidedLights(msgspec.Struct, frozen=True):
    """The effects of one database transaction: the event transactions, by (service, status, kind) of each decided
    light, and the completed ones with their time."""

    lights: Mapping[tuple[str, str, Kind], Sequence[UUID]]
    complete: Sequence[tuple[TransactionState, datetime]]


def decided_lights_in(states: Iterable[TransactionState], *, since: datetime | None = None) -> DecidedLights:
    """Collect the decisions in these states that were made since that time, or all of them without one."""
    lights: dict[tuple[str, str, Kind], list[UUID]] = {}
    complete = []
    for state in states:
        times = [light.decided_at for light in state.lights.values() if light.decided_at is not None]
        last = max(times, default=None)
        if last is None or (since is not None and last < since):
            continue
        for service, light in state.lights.items():
            if light.decided_at is not None and (since is None or light.decided_at >= since):
                lights.setdefault((service, light.status.value, state.kind), []).append(state.transaction_id)
        if len(times) == len(state.lights):
            complete.append((state, last))
    return DecidedLights(lights, complete)


def lights_from_document(document: Mapping[str, Any]) -> dict[str, Light]:
    """Decode the lights from the event transaction's JSON column, in the order of SIGNUP_SERVICES; PostgreSQL does not
    keep the order in which they were stored. Services that are no longer in use come last."""
    names = [name for name in settings.SIGNUP_SERVICES if name in document]
    if len(names) < len(document):
        names += sorted(document.keys() - set(names))
    return {name: msgspec.convert(document[name], Light) for name in names}


def lights_as_document(lights: Mapping[str, Light]) -> dict[str, Any]:
    """Encode the lights for the event transaction's JSON column."""
    document: dict[str, Any] = msgspec.to_builtins(lights)
    return document
