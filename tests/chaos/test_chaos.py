"""The small form: 500 sign-ups, 8 kills. `make chaos` is the full one."""

import secrets

import pytest

from tests.chaos.report import report
from tests.chaos.run import run


@pytest.mark.needs("application", "kafka", "postgresql", "caddy")
def test_nothing_is_lost_and_no_light_is_wrong(capsys: pytest.CaptureFixture[str]):
    with capsys.disabled():
        outcome = run(signups=500, kills=8, seed=secrets.randbelow(10**6))
        print(report(outcome))
    assert outcome.counts["kill"] == 8
    assert outcome.offences == []
