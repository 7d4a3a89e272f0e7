"""The report of `make bench`."""

import json

from bench.generator import NOTHING, Load
from bench.report import Row, as_json, ratio_at_most, rows_against, tables
from bench.rows.pace import Pace

DETAIL = Row(name="CPU", unit="ms", ours=3.0)
FELT = Row(name="lights", unit="ms", ours=30.0, felt=True)


def test_felt_metrics_come_first_and_the_others_are_marked_as_detail():
    report = tables([DETAIL, FELT])
    titles_and_rows = ("What a user or an operator feels", "| lights", "Engineering detail", "| CPU")
    places = [report.index(text) for text in titles_and_rows]
    assert places == sorted(places)
    assert [row["felt"] for row in json.loads(as_json([DETAIL, FELT]))["rows"]] == [True, False]


def test_each_peer_has_a_row_and_only_the_spring_peer_a_goal():
    peers = {"Spring peer": 40.0, "FastStream peer": 20.0}
    rows = list(rows_against(peers, name="alone", unit="ms", ours=10.0, goal=ratio_at_most(0.3)))
    assert [(row.against, row.ratio, row.met) for row in rows] == [
        ("Spring peer", 0.25, True),
        ("FastStream peer", 0.5, None),
    ]


def test_a_goal_without_peers_is_reported_as_not_measured():
    rows = list(rows_against({}, name="alone", unit="ms", ours=10.0, goal=ratio_at_most(0.3)))
    assert "not measured" in tables(rows)


def test_a_hash_is_subtracted_from_the_cpu_and_from_the_cores_time(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    # Two cores spend 4 ms on each of 500 sign-ups a second. Without 2 ms for the hash, they could do 1,000.
    load = Load(n=1, failed=0, rate=500, first=NOTHING, last=NOTHING, between=NOTHING, cpu_ms=0, events=0)
    pace = Pace(load, {"auth": 2.5, "kafka": 1.0}, hash_ms=2.0)
    assert pace.cpu_without_hash == 1.5
    assert pace.rate_without_hash == 1000
