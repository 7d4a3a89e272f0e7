"""`python -m bench [ROW ...]`: run the benchmark (docs/performance.md)."""

import argparse
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.report import Row, as_json, table
from bench.rows import GROUPS, OURS_ALONE
from bench.running import FULL, SMALL, Bench, machine, tell


def main() -> int:
    """Return 0 if everything requested was measured, whether or not the goals are met."""
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The benchmark holds thousands of connections on both sides of the gateway.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="signup-sync-bench-", ignore_cleanup_errors=True) as directory:
        # PostgreSQL runs as another user, who must be able to reach its subdirectory.
        Path(directory).chmod(0o711)
        bench = Bench(Path(directory), SMALL if options.small else FULL, options.peer)
        rows: list[Row] = []
        failures: dict[str, str] = {}
        try:
            measure(bench, options.rows, rows, failures)
        except KeyboardInterrupt:
            failures["the rest"] = "the run was interrupted"
        finally:
            bench.close()
    print(f"{machine()}; {(time.monotonic() - begun) / 60:.0f} min\n")
    print(table(rows))
    for name, failure in failures.items():
        print(f"\n{name} was not measured: {failure}")
    print(f"\n{as_json(rows)}")
    return 1 if failures else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"rows to measure: {', '.join(GROUPS)}; default: all")
    parser.add_argument("--peer", type=Path, help="the Spring peer's directory; without it, the peer is not measured")
    parser.add_argument(
        "--small", action="store_true", help="measure little of everything, to test the benchmark itself"
    )
    options = parser.parse_args()
    if unknown := set(options.rows) - set(GROUPS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.peer is not None and not (options.peer / "run.sh").is_file():
        parser.error(f"{options.peer} contains no Spring peer")
    return options


def measure(bench: Bench, chosen: Sequence[str], rows: list[Row], failures: dict[str, str]) -> None:
    """Add the rows and failures, group by group: a group that fails must not prevent the others."""
    for name in (name for name in GROUPS if name in (chosen or GROUPS)):
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name in OURS_ALONE:
            bench.stop_peer()
        begun = time.monotonic()
        try:
            rows += GROUPS[name](bench)
        except Exception as error:  # any error is reported with the table
            failures[name] = f"{type(error).__name__}: {error}"
            tell(f"failed: {failures[name]}")
        tell(f"{name}: {time.monotonic() - begun:.0f} s")
    if bench.peer_failure:
        failures["the Spring peer"] = bench.peer_failure


sys.exit(main())
