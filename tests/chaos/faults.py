"""The faults of a run: a plan that is derived from the seed, and the code that carries it out."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import redis

from signup_sync.participants import PARTICIPANTS
from tests.servers import Process, Server
from tests.stack import RoleProcess, Stack

# The processes to kill in the first round: one from each line, in an order derived from the seed. Later rounds kill
# any.
KILLED = (
    ("auth-1", "auth-2", "auth-results"),
    ("relay",),
    *((service,) for service in PARTICIPANTS),
    ("web",),
    ("redis",),
    ("kafka",),
    ("postgresql",),
)
ALL = (*(name for names in KILLED for name in names), "dead-letters", "caddy")
JOINED = {name: f"{name}-2" for name in (*PARTICIPANTS, "auth-results")}
# Seconds for which a killed process stays down, a frozen one stays frozen (the group's session ends after 6), and a
# second consumer runs, which takes two or three of them to start.
AWAY = (0.5, 4.0)
FROZEN_FOR = (7.5, 9.0)
JOINED_FOR = (6.0, 9.0)
# Seconds without a fault for a target after its recovery, in which it starts and works for a while.
RECOVERY = 5.0
# Seconds after which a process that ended by itself is restarted, as by a supervisor.
RESTART_PAUSE = 1.0


@dataclass(frozen=True, order=True)
class Step:
    """`what` is kill, start, freeze, resume, flush, join or leave; `at` are seconds since the beginning."""

    at: float
    what: str
    target: str


def plan(kills: int, seconds: float, random: Random) -> list[Step]:
    """Kills spread over the time, and for every four of them a flush, a freeze and a rebalance, which may overlap."""
    planner = _Planner(random)
    killed = _rounds([random.choice(names) for names in KILLED], kills, random)
    # First a consumer, so that its group presumes it dead while it is frozen.
    frozen = _rounds([random.choice(tuple(JOINED))], kills // 4, random)
    for index in range(kills):
        planner.add(seconds * (index + random.random()) / kills, "kill", killed, until="start", lasts=AWAY)
    for _ in range(max(1, kills // 4)):
        # Early enough to end while there is still traffic.
        at = iter([random.uniform(0, 0.85) * seconds for _ in range(3)])
        planner.steps.append(Step(next(at), "flush", "redis"))
        planner.add(next(at), "freeze", frozen, until="resume", lasts=FROZEN_FOR)
        planner.add(next(at), "join", _shuffled(tuple(JOINED.values()), random), until="leave", lasts=JOINED_FOR)
    return sorted(planner.steps)


def _rounds(first: Sequence[str], count: int, random: Random) -> list[str]:
    """At least `count` targets: those of the first round, then ALL in another order each round."""
    targets = _shuffled(first, random)
    while len(targets) < count:
        targets += _shuffled(ALL, random)
    return targets


def _shuffled(names: Sequence[str], random: Random) -> list[str]:
    return random.sample(names, len(names))


class _Planner:
    def __init__(self, random: Random) -> None:
        self.steps: list[Step] = []
        self._random = random
        # Begin and end of each fault of a target, its recovery included.
        self._taken: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, at: float, begin: str, targets: list[str], *, until: str, lasts: tuple[float, float]) -> None:
        """Plan a fault for the first target that has no other fault at that time, or else for the one that is free
        first. Remove it from the list.
        """
        seconds = self._random.uniform(*lasts)
        target = min(targets, key=lambda name: self._free_from(name, at, seconds))
        targets.remove(target)
        at = self._free_from(target, at, seconds)
        self._taken[target].append((at, at + seconds + RECOVERY))
        self.steps += [Step(at, begin, target), Step(at + seconds, until, target)]

    def _free_from(self, target: str, at: float, seconds: float) -> float:
        """The earliest time from `at` on at which a fault of `seconds` and its recovery touch no other fault."""
        for begin, end in sorted(self._taken[target]):
            if at < end and begin < at + seconds + RECOVERY:
                at = end
        return at


class Injector:
    """Carry out a plan on an installation, and restart processes that end by themselves."""

    def __init__(self, stack: Stack, servers: dict[str, Server], say: Callable[[str], None]) -> None:
        for role, name in JOINED.items():
            stack.add_consumer(name, like=role)
        self.counts: Counter[str] = Counter()
        self.crashes: Counter[str] = Counter()
        self._stack = stack
        self._say = say
        self._targets: dict[str, RoleProcess | Server] = {**stack.roles, **servers}
        # The processes that should run now, and the times at which those that ended by themselves are started again.
        self._wanted = set(self._targets) - set(JOINED.values())
        self._restart_at: dict[str, float] = {}

    def run(self, steps: list[Step]) -> None:
        """Return after the last step; started processes may not be ready yet."""
        begun = time.monotonic()
        for step in steps:
            while (left := begun + step.at - time.monotonic()) > 0:
                self.supervise()
                time.sleep(min(0.2, left))
            self._say(f"{step.at:6.1f} s  {step.what} {step.target}")
            self._do(step)
            self.counts[step.what] += 1

    def supervise(self) -> None:
        """Restart processes that have ended without being told to."""
        now = time.monotonic()
        for name in self._wanted:
            if self._process(name).running:
                continue
            if name not in self._restart_at:
                self.crashes[name] += 1
                self._say(f"          {name} ended by itself with {self._process(name).exit_code}")
            if now >= self._restart_at.setdefault(name, now + RESTART_PAUSE):
                del self._restart_at[name]
                self._targets[name].launch()

    def is_ready(self) -> bool:
        """Whether all processes that should run do their work."""
        return all(self._targets[name].is_ready() for name in self._wanted)

    def _do(self, step: Step) -> None:
        target = self._targets[step.target]
        match step.what:
            case "kill":
                self._wanted.discard(step.target)
                target.kill()
            case "start" | "join":
                self._wanted.add(step.target)
                self._restart_at.pop(step.target, None)
                target.launch()
            case "freeze":
                target.pause()
            case "resume":
                target.resume()
            case "leave":
                self._wanted.discard(step.target)
                target.stop()
            case "flush":
                self._flush()

    def _flush(self) -> None:
        """FLUSHALL; nothing if Redis is down at this moment."""
        try:
            with redis.Redis.from_url(self._stack.env["REDIS_URL"], socket_timeout=1) as client:
                client.flushall()
        except redis.RedisError as error:
            self._say(f"          Redis was not flushed: {error}")

    def _process(self, name: str) -> Process:
        target = self._targets[name]
        return target if isinstance(target, Process) else target.process
