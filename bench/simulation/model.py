"""The way of a sign-up: client, gateway, auth (hash, group commit), Kafka, participants, auth's results, its stream.

Each Python process is a queue with one thread, apart from the hashing threads. The servers have a thread for every job.
All share the machine's cores. Not modelled: the network, the garbage collector and rebalances.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Final

import msgspec

from bench.simulation.costs import Batch, Costs
from bench.simulation.engine import Action, Machine
from bench.simulation.queues import BatchStage, Process

PARTICIPANTS: Final = ("chat", "customer")
# The product's constants and defaults, repeated because their modules need Django; a unit test compares them.
# As in authsvc.signups.hash_pool.
ENOUGH: Final = 50
# The default of KAFKA_PARTITIONS.
PARTITIONS: Final = 4
# Milliseconds that auth's results wait for a second answer, as in authsvc.signups.answers.
GATHERS: Final = 2.0
# The defaults of RELAY_FIRST_PAUSE and RELAY_MAX_PAUSE, in milliseconds, and of RELAY_RATE.
FIRST_PAUSE: Final = 5_000.0
MAX_PAUSE: Final = 20_000.0
RELAY_RATE: Final = 500
# The share of RELAY_RATE while a service is behind, as in authsvc.management.commands.relay_signups.
SHARE_WHEN_BEHIND: Final = 0.1


class Scenario(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Either `rate` sign-ups arrive per second, at random, or `at_once` clients sign up again and again.

    `away` names a participant that is away from one second to another.
    """

    signups: int
    rate: float = 0.0
    at_once: int = 0
    cores: int = 2
    speed: float = 1.0  # the share of each core that other programs leave
    auths: int = 1
    hashing_threads: int = 2  # per instance of auth
    consumers: int = 1  # processes of each group; a partition for each
    away: tuple[str, float, float] | None = None
    seed: int = 1


@dataclass(slots=True)
class SignUp:
    number: int
    partition: int
    begun: float
    first: float = 0.0
    lights: dict[str, float] = field(default_factory=dict)  # when each turned
    last: float = 0.0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """Times in milliseconds: of all sign-ups in order, until their last light."""

    signups: Sequence[SignUp]
    seconds: float
    used: float  # seconds of CPU
    deepest: dict[str, int]  # the longest queue of each group, in messages
    caught_up: float  # the second in which the last queue of a participant that was away was empty again
    repeated: int  # events published again by the relay

    @property
    def rate(self) -> float:
        return len(self.signups) / self.seconds

    def percentile(self, share: float, of: Callable[[SignUp], float] = lambda each: each.last - each.begun) -> float:
        times = sorted(map(of, self.signups))
        return times[min(len(times) - 1, int(share * len(times)))]


def arrivals(scenario: Scenario) -> list[float]:
    """Return the times, in milliseconds, at which sign-ups arrive: a Poisson process that the seed determines."""
    at_random = random.Random(scenario.seed)
    return list(accumulate(at_random.expovariate(scenario.rate / 1000) for _ in range(scenario.signups)))


def is_complete(signup: SignUp) -> bool:
    return len(signup.lights) > len(PARTICIPANTS)


# A service's answer to a sign-up.
Answer = tuple[str, SignUp]
# Something that is done with a batch, and what follows.
Step = Callable[[Sequence[object], Action], None]


def simulate(costs: Costs, scenario: Scenario) -> Result:
    return _Model(costs, scenario).run()


class _Model:
    def __init__(self, costs: Costs, scenario: Scenario) -> None:
        self.costs, self.scenario = costs, scenario
        self.machine = Machine(scenario.cores, speed=scenario.speed)
        self.client, self.gateway, self.kafka = (Process(self.machine) for _ in range(3))
        self.redis = Process(self.machine, 1)
        self.random = random.Random(scenario.seed)
        self.partitions = max(PARTITIONS, scenario.consumers)
        self.auths = [_Auth(self) for _ in range(scenario.auths)]
        self.groups = {name: [self._participant(name) for _ in range(scenario.consumers)] for name in PARTICIPANTS}
        self.results = [self._reader_of_answers() for _ in range(scenario.consumers)]
        self.all: list[SignUp] = []
        self.begun = self.ended = 0
        self.deepest = dict.fromkeys(PARTICIPANTS, 0)
        self.caught_up = 0.0
        self.repeated = 0
        self.due: list[tuple[float, SignUp]] = []

    def run(self) -> Result:
        for _ in range(self.scenario.at_once):
            self._arrive()
        for due in arrivals(self.scenario) if self.scenario.rate else ():
            self.machine.after(due, self._arrive)
        if self.scenario.away:
            name, begin, end = self.scenario.away
            for seconds, is_away in ((begin, True), (end, False)):
                self.machine.after(seconds * 1000, partial(self._set_away, name, is_away))
        self.machine.after(1000, self._relay)
        self.machine.run()
        seconds = max(each.last for each in self.all) / 1000
        return Result(self.all, seconds, self.machine.used / 1000, self.deepest, self.caught_up, self.repeated)

    # --- The servers, whose connections work in parallel

    def connection(self) -> Step:
        """Return the step that runs a batch's transaction on a connection of its own, and waits for the disk."""
        backend = Process(self.machine, 1)
        return lambda batch, done: backend.do(
            self.costs.postgresql.of(len(batch)), lambda: self.machine.after(self.costs.disk, done)
        )

    def produce(
        self, signups: Sequence[SignUp], deliver: Callable[[int, list[SignUp]], None], done: Action | None = None
    ) -> None:
        """Send messages to Kafka, in one request for each partition, and call `deliver` with each partition's, then
        `done`. So consumers get the first of a batch before the last."""
        parts: dict[int, list[SignUp]] = {}
        for signup in signups:
            parts.setdefault(signup.partition, []).append(signup)

        def append(partition: int) -> None:
            deliver(partition, parts.pop(partition))
            if not parts and done:
                done()

        for partition, part in list(parts.items()):
            self.kafka.do(self.costs.kafka.of(len(part)), partial(append, partition))

    def _wake(self, answers: Sequence[object], done: Action) -> None:
        self.redis.do(self.costs.redis.of(len(answers)), done)

    def send(self, done: Action) -> None:
        """Pass a request from a client through the gateway."""
        gateway = partial(self.gateway.do, self.costs.gateway.item, done)
        self.client.do(self.costs.client.item, gateway)

    def stream(self, auth: "_Auth", received: Sequence[Action]) -> None:
        """Pass an event on each of some streams from auth through the gateway to the client, then do what follows."""
        costs, is_first = self.costs, True
        for done in received:
            client = partial(self.client.do, costs.client.of_one(is_first=is_first), done)
            gateway = partial(self.gateway.do, costs.gateway.of_one(is_first=is_first), client)
            auth.loop.do(costs.loop.of_one(is_first=is_first), gateway)
            is_first = False

    # --- Arrivals

    def _arrive(self) -> None:
        if self.begun == self.scenario.signups:
            return
        signup = SignUp(self.begun, self.random.randrange(self.partitions), self.machine.now)
        self.begun += 1
        self.all.append(signup)
        auth = self.auths[signup.number % len(self.auths)]
        self.send(partial(auth.receive, signup))

    # --- From auth's commit to the last light

    def publish(self, signups: Sequence[SignUp]) -> None:
        for signup in signups:
            signup.lights["auth"] = self.machine.now
            self._due_again(signup)
        self._ask(signups)

    def _ask(self, signups: Sequence[SignUp], services: Sequence[str] = PARTICIPANTS) -> None:
        def deliver(partition: int, part: list[SignUp]) -> None:
            for name in services:
                members = self.groups[name]
                members[partition % len(members)].add(*part)
                self.deepest[name] = max(self.deepest[name], sum(member.waiting for member in members))

        self.produce(signups, deliver)

    def _answer(self, name: str, signups: list[SignUp], done: Action) -> None:
        def deliver(partition: int, part: list[SignUp]) -> None:
            self.results[partition % len(self.results)].add(*((name, signup) for signup in part))

        self.produce(signups, deliver, done)

    def _note_answered(self, name: str, answered: list[SignUp]) -> None:
        if self.scenario.away and not self.caught_up:
            away, _, back = self.scenario.away
            if name == away and self.machine.now >= back * 1000 and not any(each.waiting for each in self.groups[name]):
                self.caught_up = self.machine.now / 1000

    def _decide(self, answers: list[Answer]) -> None:
        changed = {signup.number: signup for name, signup in answers if name not in signup.lights}
        for name, signup in answers:
            signup.lights.setdefault(name, self.machine.now)
        for number, auth in enumerate(self.auths):
            held = [signup for signup in changed.values() if signup.number % len(self.auths) == number]
            self.stream(auth, [partial(self._end, each) if is_complete(each) else _nothing for each in held])

    def _end(self, signup: SignUp) -> None:
        signup.last = self.machine.now
        self.ended += 1
        if self.scenario.at_once:
            self._arrive()

    def _participant(self, name: str) -> BatchStage[SignUp]:
        work, query = self._process(self.costs.participant), self.connection()
        return BatchStage(self.machine, [work, query, partial(self._answer, name)], partial(self._note_answered, name))

    def _reader_of_answers(self) -> BatchStage[Answer]:
        steps = [self._process(self.costs.results), self.connection(), self._wake]
        return BatchStage(self.machine, steps, self._decide, gathers=GATHERS)

    def _process(self, cost: Batch) -> Step:
        process = Process(self.machine, 1)
        return lambda batch, done: process.do(cost.of(len(batch)), done)

    # --- Failure and repair

    def _set_away(self, name: str, is_away: bool) -> None:
        for member in self.groups[name]:
            member.is_away = is_away
            member.look()

    def _due_again(self, signup: SignUp) -> None:
        pause = min(FIRST_PAUSE * 2**signup.attempt, MAX_PAUSE)
        signup.attempt += 1
        self.due.append((self.machine.now + pause, signup))

    def _relay(self) -> None:
        """Publish what is due again, every second, for the participants that have not answered."""
        unread = [sum(each.unread for each in group) for group in self.groups.values()]
        unread.append(sum(each.unread for each in self.results))
        limit = int(RELAY_RATE * SHARE_WHEN_BEHIND) if max(unread) >= RELAY_RATE else RELAY_RATE
        self.due = [each for each in self.due if not is_complete(each[1])]
        now = [each for each in self.due if each[0] <= self.machine.now][:limit]
        chosen = {id(signup) for _, signup in now}
        self.due = [each for each in self.due if id(each[1]) not in chosen]
        for _, signup in now:
            self._due_again(signup)
        self.repeated += len(now)
        for name in PARTICIPANTS:
            self._ask([signup for _, signup in now if name not in signup.lights], [name])
        if self.ended < self.scenario.signups:
            self.machine.after(1000, self._relay)


class _Auth:
    """An instance of auth: its event loop, its hashing threads and its writer, which share the interpreter."""

    def __init__(self, model: _Model) -> None:
        self._model = model
        self.loop = Process(model.machine, 1)
        self._hashes = Process(model.machine, model.scenario.hashing_threads, share=self.loop.share)
        self._taken = self._hashed = 0
        self._writer: BatchStage[SignUp] = BatchStage(
            model.machine,
            [self._save, model.connection()],
            self._saved,
            may_begin=self._may_begin,
        )

    def receive(self, signup: SignUp) -> None:
        self.loop.do(self._model.costs.loop.item, partial(self._hash, signup))

    def _hash(self, signup: SignUp) -> None:
        has_slept = self._taken < self._model.scenario.hashing_threads
        self._taken += 1
        # The event loop hears of the end as soon as it is free.
        cost = self._model.costs.hash.of_one(is_first=has_slept)
        self._hashes.do(cost, lambda: self.loop.do(0.0, partial(self._queue, signup)))

    def _queue(self, signup: SignUp) -> None:
        self._taken -= 1
        self._hashed += 1
        self._writer.add(signup)

    def _may_begin(self, waiting: int) -> bool:
        if max(waiting, self._hashed) < min(self._taken - self._model.scenario.hashing_threads, ENOUGH):
            return False
        self._hashed = 0
        return True

    def _save(self, signups: list[SignUp], done: Action) -> None:
        self.loop.do(self._model.costs.save.of(len(signups)), done)

    def _saved(self, signups: list[SignUp]) -> None:
        self._model.publish(signups)
        self._model.stream(self, [partial(self._answer_first, signup) for signup in signups])

    def _answer_first(self, signup: SignUp) -> None:
        signup.first = self._model.machine.now


def _nothing() -> None:
    pass
