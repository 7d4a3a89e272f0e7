"""The local installation (`make run`) under load."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.report import Row, at_least, middle
from bench.rows.starts import first_green, make_run
from bench.running import Bench, in_turn
from tests.servers import free_port
from tests.servers.process import LOOPBACK

AT_ONCE = 50


def embedded(bench: Bench) -> Iterator[Row]:
    """Measure the rate of `make run` with the cheap hash."""
    size, port = bench.size, free_port()
    url = f"http://{LOOPBACK}:{port}"
    with (
        tempfile.TemporaryDirectory(dir=bench.directory) as data,
        make_run(Path(data), port, **bench.cheap_hash.settings),
    ):
        first_green(bench.generator, url)
        bench.generator.signups(url, size.warm_up // 2, at_once=AT_ONCE)
        rates = in_turn(
            size.rounds, embedded=lambda: bench.generator.signups(url, size.signups // 2, at_once=AT_ONCE).rate
        )
    yield Row(
        name=f"embedded default, {AT_ONCE} at once", unit="1/s", ours=middle(rates["embedded"]), goal=at_least(1500)
    )
