"""One chaos run: start everything, let people sign up, inject faults, wait for the recovery, and judge the result."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from uuid import UUID

from confluent_kafka import KafkaException

from tests.chaos import evidence
from tests.chaos.clients import Crowd
from tests.chaos.faults import Injector, plan
from tests.chaos.judge import Evidence, Offence, judge
from tests.chaos.noise import Noise
from tests.chaos.people import crowd
from tests.chaos.story import Story
from tests.servers import CaddyServer, KafkaServer, PostgresqlServer, Server
from tests.stack import Stack
from tests.waiting import eventually

# The folder for the logs of a failed run.
KEPT = Path(__file__).resolve().parents[1] / "artifacts"
# Seconds of the run per kill, and the maximum rate of sign-ups per second.
SECONDS_PER_KILL = 7.0
RATE = 33.0
# Seconds after the last fault within which every light must turn.
HEALED_WITHIN = 60.0
# Faulty sign-ups whose whole history is printed.
TOLD = 5

SETTINGS = {
    # Hashing with production's parameters would take CPU from everything else on the machine, and test only argon2.
    "ARGON2_MEMORY_KIB": "512",
    "ARGON2_TIME_COST": "1",
    # All owners come from one address.
    "RATE_LIMIT_FAILED_LOGIN": "0",
    "ACCOUNT_CLOSING_DAYS": "0",
}


@dataclass
class Outcome:
    """A run and its outcome. `traffic` has the messages about the first faulty sign-ups."""

    seed: int
    signups: int
    kills: int
    seconds: float = 0.0
    healed_after: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    noise: Counter[str] = field(default_factory=Counter)
    poison: int = 0
    offences: list[Offence] = field(default_factory=list)
    evidence: Evidence | None = None
    traffic: Mapping[UUID, list[str]] = field(default_factory=dict)
    logs: Path | None = None

    @property
    def stories(self) -> list[Story]:
        return list(self.evidence.stories.values()) if self.evidence else []


def missing() -> str | None:
    """The reason why a run is impossible here, in a sentence."""
    return PostgresqlServer.missing() or KafkaServer.missing() or CaddyServer.missing()


def run(*, signups: int, kills: int, seed: int, say: Callable[[str], None] = print) -> Outcome:
    """Run it. The outcome has all faults found. `say` gets a line for each step."""
    outcome = Outcome(seed, signups, kills)
    people = crowd(signups, Random(f"people {seed}"))
    seconds = max(kills * SECONDS_PER_KILL, signups / RATE)
    say(f"chaos: {signups} sign-ups and {kills} kills in {seconds:.0f} s, seed {seed}")
    with _installation() as (stack, servers):
        evidence.introduce(stack, people)
        browsers = Crowd(stack.base_url, people, seconds=seconds, seed=seed)
        noise = Noise(stack, seed=seed)
        injector = Injector(stack, servers, say)
        begun = time.monotonic()
        noise.start()
        browsers.start()
        try:
            injector.run(plan(kills, seconds, Random(f"faults {seed}")))
            outcome.healed_after = _heal(stack, injector, browsers, noise)
        finally:
            browsers.stop()
            noise.finish()
        outcome.seconds = time.monotonic() - begun
        outcome.counts, outcome.crashes = injector.counts, injector.crashes
        outcome.noise, outcome.poison = noise.counts, sum(map(len, noise.poison.values()))
        outcome.evidence = evidence.collect(stack, browsers.stories, noise)
        outcome.offences = judge(outcome.evidence)
        if outcome.offences:
            outcome.logs = KEPT / f"chaos-{seed}"
            evidence.keep_logs(stack, [server.process.log_path for server in servers.values()], outcome.logs)
            offenders = {each.signup_id: None for each in outcome.offences if each.signup_id}
            outcome.traffic = evidence.traffic_of(stack, list(offenders)[:TOLD])
    return outcome


@contextmanager
def _installation() -> Iterator[tuple[Stack, dict[str, Server]]]:
    """Every role on servers of this run's own, which it may kill; the servers by name."""
    # Its freezes outlast the broker's session, so the broker fences itself on waking.
    kafka, postgresql = KafkaServer(), PostgresqlServer()
    with ExitStack() as cleanup:
        for server in (kafka, postgresql):
            cleanup.callback(server.close)
            server.launch()
        for server in (kafka, postgresql):
            server.wait_ready()
        stack = cleanup.enter_context(Stack.real(postgresql=postgresql, kafka=kafka, **SETTINGS))
        assert stack.caddy
        yield stack, {"kafka": kafka, "postgresql": postgresql, "redis": stack.redis, "caddy": stack.caddy}


def _heal(stack: Stack, injector: Injector, browsers: Crowd, noise: Noise) -> float:
    """Wait up to HEALED_WITHIN seconds until everything has recovered, and return the seconds that it took.

    The judge reports everything that has not recovered by then.
    """
    begun = time.monotonic()

    def is_healed() -> bool:
        injector.supervise()
        if not (browsers.is_done.is_set() and injector.is_ready()):
            return False
        noise.finish()
        try:
            return evidence.pending(stack) == 0 and evidence.unread(stack) == 0
        except KafkaException:  # Kafka has just been restarted
            return False

    with suppress(AssertionError):
        eventually(is_healed, HEALED_WITHIN, what="everything has recovered")
    return time.monotonic() - begun
