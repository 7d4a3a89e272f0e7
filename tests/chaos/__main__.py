"""`make chaos SIGNUPS=20000 KILLS=60 SEED=1`: the exit code is 0 if no errors were found."""

import argparse
import secrets
import signal
import sys

from tests.chaos.report import report
from tests.chaos.run import missing, run
from tests.contract import kafka_messages


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--signups", type=int, default=500)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=None, help="default: another each time; it is printed")
    options = parser.parse_args()
    if reason := missing():
        print(f"chaos: {reason}", file=sys.stderr)
        return 2
    # A signal that ends a job ends it in order, with all processes that it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kafka_messages.validate_all()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    outcome = run(signups=options.signups, kills=options.kills, seed=seed, say=lambda line: print(line, flush=True))
    print(report(outcome), flush=True)
    return 1 if outcome.offences else 0


if __name__ == "__main__":
    sys.exit(main())
