"""The small form: 500 sign-ups, 8 kills. `make chaos` is the full one."""

from typing import Final

import pytest

from tests.chaos.report import report
from tests.chaos.run import run

# Always the same people and faults, so that a red run is about the change and not about the dice; `make chaos` rolls
# them anew.
SEED: Final = 780629


@pytest.mark.needs("application", "kafka", "postgresql", "caddy")
def test_nothing_is_lost_and_no_light_is_wrong(capsys: pytest.CaptureFixture[str]):
    with capsys.disabled():
        outcome = run(signups=500, kills=8, seed=SEED)
        print(report(outcome))
    assert outcome.counts["kill"] == 8
    assert outcome.offences == []
