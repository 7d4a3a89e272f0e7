"""What is done to the installation, and when: a plan made from the seed, and what carries it out."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

import redis

from tests.servers import Process, Server
from tests.stack import Role, Stack

# Who is killed in the first round, in an order of the seed's; one of each line. Later rounds take all.
KILLED = (
    ("auth-1", "auth-2", "auth-results"),
    ("relay",),
    ("chat",),
    ("customer",),
    ("web",),
    ("redis",),
    ("kafka",),
    ("postgresql",),
)
KILLED_LATER = (*(name for names in KILLED for name in names), "caddy")
FROZEN = ("chat", "customer", "auth-results", "auth-1", "auth-2", "relay", "redis", "postgresql", "kafka")
JOINED = {"chat": "chat-2", "customer": "customer-2", "auth-results": "auth-results-2"}
# Seconds that what was killed stays away, that what is frozen stays so (the group's session ends after 6), and that a
# second consumer stays: its start takes two or three of them.
AWAY = (0.5, 4.0)
FROZEN_FOR = (7.5, 9.0)
JOINED_FOR = (6.0, 9.0)
# Seconds that a target is left alone after it was let go: it starts, and works for a while.
RECOVERY = 5.0
# Seconds after which what ended by itself is started again, as a supervisor would.
RESTART_PAUSE = 1.0


@dataclass(frozen=True, order=True)
class Step:
    """`what` is kill, start, freeze, resume, flush, join or leave; `at` are seconds since the beginning."""

    at: float
    what: str
    target: str


def plan(kills: int, seconds: float, random: Random) -> list[Step]:
    """Kills spread over the time, and for every four of them a flush, a freeze and a rebalance, which may overlap."""
    steps: list[Step] = []
    free_at: dict[str, float] = {}
    others = max(1, kills // 4)
    victims = _victims(random)
    times = sorted(seconds * (index + random.random()) / kills for index in range(kills))
    for at in times:
        steps += _fault(at, "kill", "start", next(victims), AWAY, free_at, random)
    for at in (seconds * random.random() for _ in range(others)):
        steps.append(Step(at, "flush", "redis"))
    for at in (seconds * random.random() for _ in range(others)):
        steps += _fault(at, "freeze", "resume", random.choice(FROZEN), FROZEN_FOR, free_at, random)
    for at in (seconds * random.random() for _ in range(others)):
        steps += _fault(at, "join", "leave", random.choice(list(JOINED.values())), JOINED_FOR, free_at, random)
    return sorted(steps)


def _victims(random: Random) -> Iterator[str]:
    for round_ in count():
        names = list(KILLED_LATER) if round_ else [random.choice(names) for names in KILLED]
        random.shuffle(names)
        yield from names


def _fault(
    at: float,
    begin: str,
    end: str,
    target: str,
    lasts: tuple[float, float],
    free_at: dict[str, float],
    random: Random,
) -> list[Step]:
    """The two steps of a fault, later if the target is still in another's hands."""
    at = max(at, free_at.get(target, 0.0))
    until = at + random.uniform(*lasts)
    free_at[target] = until + RECOVERY
    return [Step(at, begin, target), Step(until, end, target)]


class Injector:
    """Carries out a plan on an installation, and starts again what ends by itself."""

    def __init__(self, stack: Stack, servers: dict[str, Server], say: Callable[[str], None]) -> None:
        for role, name in JOINED.items():
            stack.add_consumer(name, like=role)
        self.counts: Counter[str] = Counter()
        self.crashes: Counter[str] = Counter()
        self._stack = stack
        self._say = say
        self._targets: dict[str, Role | Server] = {**stack.roles, **servers}
        # Those that should run now, and when those that ended by themselves are to be started again.
        self._wanted = set(self._targets) - set(JOINED.values())
        self._restart_at: dict[str, float] = {}

    def run(self, steps: list[Step]) -> None:
        """Returns when the last step is done; launched processes may not be ready yet."""
        begun = time.monotonic()
        for step in steps:
            while (left := begun + step.at - time.monotonic()) > 0:
                self.supervise()
                time.sleep(min(0.2, left))
            self._say(f"{step.at:6.1f} s  {step.what} {step.target}")
            self._do(step)
            self.counts[step.what] += 1

    def supervise(self) -> None:
        """Starts again what has ended without being told to."""
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
        """Whether all that should run does its work."""
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
        """FLUSHALL; where Redis is away at this moment, it has been hurt enough."""
        try:
            with redis.Redis.from_url(self._stack.env["REDIS_URL"], socket_timeout=1) as client:
                client.flushall()
        except redis.RedisError as error:
            self._say(f"          Redis was not flushed: {error}")

    def _process(self, name: str) -> Process:
        target = self._targets[name]
        return target if isinstance(target, Process) else target.process
