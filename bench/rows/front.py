"""The user's path: from the form's POST to the last frame on the WebSocket, which is already open."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import bare_form
from bench.installation import Installation
from bench.processes import CpuMeter
from bench.report import Row, middle, ratio_at_most
from bench.rows.held import FORM, RATE
from bench.running import Bench, in_turn
from tests.servers import CaddyServer, free_port
from tests.servers.process import LOOPBACK

BARE = "bare-form"


@dataclass(frozen=True, slots=True)
class Posted:
    """One round, in ms: p50 until the last frame (bare form: until the answer), and the web process's CPU per form."""

    p50: float
    cpu: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, {self.cpu:.2f} ms CPU of the web process"


def front(bench: Bench) -> Iterator[Row]:
    """Measure forms one at a time, through front, Caddy, auth, Kafka and back."""
    ours, n = bench.ours, bench.size.alone

    def form() -> Posted:
        with bench.generator.pages(ours.url, FORM, n) as pages:
            pages.connect(rate=RATE / 5)
            meter = CpuMeter({"web": ours.pid("web")})
            return Posted(pages.post(n).last.p50, meter.total() * 1000 / n)

    def bare() -> Posted:
        with bench.generator.pages(gateway.env["GATEWAY_URL"], bare_form.PATH, n) as pages:
            meter = CpuMeter({"web": ours.pid(BARE)})
            return Posted(pages.post(n).first.p50, meter.total() * 1000 / n)

    def api() -> Posted:
        return Posted(bench.generator.signups(ours.url, n, at_once=1).last.p50, 0)

    with _bare_form(ours) as gateway:
        for warm_up in (form, bare, api):
            warm_up()
        posted = in_turn(bench.size.rounds, form=form, api=api, bare=bare)
    api_ms, bare_ms = (middle(each.p50 for each in posted[name]) for name in ("api", "bare"))
    yield Row(
        name="form POST to the last frame, alone, p50",
        unit="ms",
        ours=middle(each.p50 for each in posted["form"]),
        other=None if api_ms is None or bare_ms is None else api_ms + 2.5 * bare_ms,
        against="API + 2.5 bare form POSTs",
        goal=ratio_at_most(1),
        felt=True,
    )
    yield Row(
        name="CPU of web for a form and its relay",
        unit="ms",
        ours=middle(each.cpu for each in posted["form"]),
        other=middle(each.cpu for each in posted["bare"]),
        against="bare form POST",
        goal=ratio_at_most(2),
    )


@contextmanager
def _bare_form(ours: Installation) -> Iterator[CaddyServer]:
    """Run bench.bare_form behind a separate gateway."""
    roles = ours.stack.roles
    role = ours.stack.add_web(BARE, free_port())
    role.command += ["--settings", bare_form.__name__]
    try:
        role.start()
        address = f"{LOOPBACK}:{role.port}"
        with CaddyServer(web=address, auth=[address]) as gateway:
            yield gateway
    finally:
        roles.pop(BARE).kill()
