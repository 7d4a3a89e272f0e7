"""The actions and observations of one client."""

import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from tests.chaos.people import Person

# Seconds until a lost connection is tried again, at first and at most; half to all of it.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 4.0
# Errors that a client treats as a lost connection.
LOST = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass
class Story:
    """`log` has lines of (seconds since the run began, what); `states` has the states that the client saw, in order."""

    person: Person
    run_began: float
    log: list[tuple[float, str]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    is_accepted: bool = False
    posts: int = 0
    resumes: int = 0
    began: float = 0.0
    ended: float | None = None
    unexpected: list[str] = field(default_factory=list)

    @property
    def version(self) -> int:
        return self.states[-1]["version"] if self.states else 0

    @property
    def is_complete(self) -> bool:
        return bool(self.states) and self.states[-1]["complete"]

    def note(self, what: str) -> None:
        self.log.append((time.monotonic() - self.run_began, what))

    def see(self, state: dict[str, Any]) -> None:
        lights = ", ".join(f"{name} {light['status']}" for name, light in state["services"].items())
        self.note(f"sees {state['version']}: {lights}")
        self.states.append(state)

    def note_unexpected(self, what: str) -> None:
        """The product must never have done this."""
        self.note(what)
        self.unexpected.append(what)


def pause_after(failures: int, random: Random) -> float:
    """Seconds until the next attempt, spread so that those who failed together do not come back together."""
    return min(FIRST_PAUSE * 2 ** min(failures, 8), LONGEST_PAUSE) * random.uniform(0.5, 1)
