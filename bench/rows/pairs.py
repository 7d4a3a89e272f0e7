"""The rate with two auth processes and two consumers per participant."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from bench.installation import Installation
from bench.processes import CpuMeter
from bench.report import Row, at_least, middle, ratio_at_least
from bench.rows.pace import AT_ONCE, warm_up
from bench.running import Bench, tell
from tests.servers import CaddyServer, free_port
from tests.servers.process import LOOPBACK

PAIRS: Mapping[str, str] = {"auth-1": "auth-2", "chat": "chat-2", "customer": "customer-2"}


def two(bench: Bench) -> Iterator[Row]:
    """Measure with one and with two processes in turn; the second ones are stopped in between."""
    ours, size = bench.ours, bench.size
    rates: dict[str, list[float]] = {"one": [], "two": []}
    smallest: list[float] = []
    with ExitStack() as opened:
        url = _second_ones(ours, opened)
        warm_up(bench, ours)
        for _ in range(size.rounds):
            rates["one"].append(bench.generator.signups(ours.url, size.signups, at_once=AT_ONCE).rate)
            for name in PAIRS.values():
                ours.stack.roles[name].start()
            bench.generator.signups(url, size.warm_up, at_once=AT_ONCE)
            meter = CpuMeter(ours.pids)
            rates["two"].append(bench.generator.signups(url, size.signups, at_once=AT_ONCE).rate)
            shares = _shares(meter.read())
            smallest.append(min(min(share, 100 - share) for share in shares.values()))
            said = ", ".join(f"{name} {share:.0f} %" for name, share in shares.items())
            tell(f"one of each {rates['one'][-1]:,.0f}/s, two {rates['two'][-1]:,.0f}/s; CPU of the first: {said}")
            for name in PAIRS.values():
                ours.stack.roles[name].stop()
    yield Row(
        name="two auth and two of each participant",
        unit="1/s",
        ours=middle(rates["two"]),
        other=middle(rates["one"]),
        against="one of each",
        goal=ratio_at_least(0.9),
    )
    yield Row(name="the smallest share of a pair, of its CPU", unit="%", ours=middle(smallest), goal=at_least(40))


def _second_ones(ours: Installation, opened: ExitStack) -> str:
    """Add the second processes, without starting them, and a gateway to both auth instances. Return its address."""
    stack = ours.stack
    port = free_port()
    stack.add_web("auth-2", port)
    stack.add_consumer("chat-2", like="chat")
    stack.add_consumer("customer-2", like="customer")
    for name in PAIRS.values():
        opened.callback(stack.roles.pop, name)
        opened.callback(stack.roles[name].kill)
    auth = [f"{LOOPBACK}:{stack.roles[name].port}" for name in ("auth-1", "auth-2")]
    web = f"{LOOPBACK}:{stack.roles['web'].port}"
    return opened.enter_context(CaddyServer(web=web, auth=auth)).env["GATEWAY_URL"]


def _shares(used: Mapping[str, float]) -> dict[str, float]:
    """Return the first process's share of each pair's CPU, in percent."""
    return {first: 100 * used[first] / (used[first] + used[second]) for first, second in PAIRS.items()}
