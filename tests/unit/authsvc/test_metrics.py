"""Auth's metrics."""

from typing import get_args

from authsvc.metrics import LIMITED
from authsvc.rate_limits import Limit


def test_every_limit_has_a_series_before_its_first_refusal():
    limits = {name for literal in get_args(Limit) for name in get_args(literal)}
    [metric] = LIMITED.collect()
    assert {sample.labels["limit"] for sample in metric.samples} == limits
