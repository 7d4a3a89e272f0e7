"""`python -m bench [ROW ...]`: run the benchmark (docs/performance.md)."""

import argparse
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.report import Row, as_json, tables
from bench.rows import GROUPS, OURS_ALONE
from bench.running import FULL, SMALL, Bench, machine, tell


def main() -> int:
    """Return 0 if everything requested was measured, whether or not the goals are met."""
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The benchmark holds thousands of connections on both sides of the gateway.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    begun, here = time.monotonic(), machine()
    with tempfile.TemporaryDirectory(prefix="signup-sync-bench-", ignore_cleanup_errors=True) as directory:
        # PostgreSQL runs as another user, who must be able to reach its subdirectory.
        Path(directory).chmod(0o711)
        bench = Bench(Path(directory), SMALL if options.small else FULL, options.peers)
        rows: list[Row] = []
        failures: dict[str, str] = {}
        try:
            measure(bench, options.rows, rows, failures)
        except KeyboardInterrupt:
            failures["the rest"] = "the run was interrupted"
        finally:
            bench.close()
    print(f"{here}; {(time.monotonic() - begun) / 60:.0f} min\n")
    print(tables(rows))
    for name, failure in failures.items():
        print(f"\n{name} was not measured: {failure}")
    print(f"\n{as_json(rows)}")
    return 1 if failures else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"rows to measure: {', '.join(GROUPS)}; default: all")
    parser.add_argument(
        "--peer",
        type=Path,
        action="append",
        default=[],
        dest="peers",
        help="the directory of a peer to measure alongside; repeat it for several",
    )
    parser.add_argument(
        "--small", action="store_true", help="measure little of everything, to test the benchmark itself"
    )
    options = parser.parse_args()
    if unknown := set(options.rows) - set(GROUPS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    for peer in options.peers:
        if not (peer / "run.sh").is_file():
            parser.error(f"{peer} contains no peer")
    return options


def measure(bench: Bench, chosen: Sequence[str], rows: list[Row], failures: dict[str, str]) -> None:
    """Add the rows and failures, group by group: a group that fails must not prevent the others."""
    for name in (name for name in GROUPS if name in (chosen or GROUPS)):
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name in OURS_ALONE:
            bench.stop_peers()
        begun = time.monotonic()
        try:
            rows += GROUPS[name](bench)
        except Exception as error:  # any error is reported with the table
            failures[name] = f"{type(error).__name__}: {error}"
            tell(f"failed: {failures[name]}")
        tell(f"{name}: {time.monotonic() - begun:.0f} s")
    failures |= {f"the {name}": failure for name, failure in bench.peer_failures.items()}


sys.exit(main())
