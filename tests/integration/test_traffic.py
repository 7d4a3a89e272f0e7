"""The traffic page: the counts of sign-ups and verdicts, their roll-up, and the stream that feeds the charts."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import transaction
from django.test import AsyncClient, Client
from django.utils import timezone

from authsvc.lights import TransactionState
from authsvc.models import TrafficMinute, User
from authsvc.operations import traffic_history, traffic_page
from authsvc.operations.traffic_history import MINUTE, RollUp, read_days, read_seconds
from authsvc.signups import traffic_counts as traffic_module
from authsvc.signups.changes import change_account, remove_account
from authsvc.signups.events import REQUEST_TOPICS
from authsvc.signups.projection import Projection
from authsvc.signups.traffic_counts import LagSampler, bucket_of, key_of
from eventbus.topics import ensure_topics
from tests.users import client_of, client_with, user_with
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True)]

PAGE = "/admin/authsvc/trafficminute/"
STREAM = f"{PAGE}stream/"


@pytest.fixture(autouse=True)
def client_of_redis() -> Iterator[redis.Redis]:
    """A Redis without figures."""
    with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True) as client:
        forget(client)
        yield client
        forget(client)


def forget(client: redis.Redis) -> None:
    if keys := list(client.scan_iter("traffic:*")):
        client.delete(*keys)


def figures(client: redis.Redis) -> Counter[str]:
    """The sums of the last minute's counts."""
    now = int(time.time())
    sums: Counter[str] = Counter()
    for second in range(now - 60, now + 1):
        sums.update({field: int(value) for field, value in client.hgetall(key_of(second)).items()})
    return sums


def a_state() -> TransactionState:
    return TransactionState.all_pending(uuid4(), started_at=timezone.now(), services=["auth", "chat"])


# --- Counted ----------------------------------------------------------------------------------------------------


def test_counts_add_up_and_expire(client_of_redis):
    for count in (1, 2):
        Projection().write_and_wake([a_state()], counts={"begun": 2, "verdict:chat:FAIL": count})
    LagSampler().sample({"chat": 7})
    found = figures(client_of_redis)
    assert (found["begun"], found["verdict:chat:FAIL"], found["lag:chat"]) == (4, 3, 7)
    assert all(
        0 < client_of_redis.ttl(key) <= traffic_module.COUNTS_TTL for key in client_of_redis.scan_iter("traffic:*")
    )


@pytest.mark.needs("broker")
def test_sign_ups_changes_and_removals_are_counted_as_begun(client_of_redis, settings):
    settings.KAFKA_PREFIX = f"traffic-{uuid4()}-"
    ensure_topics(REQUEST_TOPICS.values())
    root = user_with(user_id="root")
    root.is_superuser = True
    root.save()
    forget(client_of_redis)
    added = {"user_id": "kim", "email": "kim@example.org", "password1": "correct horse 9", "role": "ROLE_USER"}
    client_of(root).post("/admin/authsvc/user/add/", added | {"password2": "correct horse 9", "user_name": "Kim"})
    kim = User.objects.get(user_id="kim")
    assert figures(client_of_redis) == {"begun": 1, "verdict:auth:SUCCESS": 1}
    kim.user_name = "Mina"
    change_account(kim)
    assert figures(client_of_redis) == {"begun": 2, "verdict:auth:SUCCESS": 2}
    # The removal ends the sign-up and the change, whose lights were pending.
    remove_account(kim)
    counted = figures(client_of_redis)
    assert (counted["begun"], counted["verdict:auth:SUCCESS"]) == (3, 3)
    assert (counted["verdict:chat:FAIL"], counted["verdict:customer:FAIL"]) == (2, 2)


def by_make_admin() -> None:
    named = {"ADMIN_USER_ID": "kim.admin", "ADMIN_EMAIL": "kim@example.org", "ADMIN_PASSWORD": "correct horse 9"}
    with mock.patch.dict("os.environ", named):
        call_command("make_admin", stdout=StringIO())


def by_createsuperuser() -> None:
    with mock.patch.dict("os.environ", {"DJANGO_SUPERUSER_PASSWORD": "correct horse 9"}):
        call_command("createsuperuser", interactive=False, verbosity=0, user_id="kim", email="kim@example.org")


def by_saving() -> None:
    User(user_id="kim", email="kim@example.org", user_name="Kim").save()


@pytest.mark.parametrize("add", [by_make_admin, by_createsuperuser, by_saving])
def test_a_user_whom_a_command_adds_is_counted_once(client_of_redis, add: Callable[[], None]):
    add()
    assert figures(client_of_redis) == {"begun": 1, "verdict:auth:SUCCESS": 1}


def test_a_user_whose_transaction_is_undone_is_not_counted(client_of_redis):
    with transaction.atomic():
        by_saving()
        transaction.set_rollback(True)
    assert figures(client_of_redis) == {}


def test_an_outage_of_redis_loses_figures_and_is_tried_only_once(monkeypatch, caplog):
    monkeypatch.setattr(settings, "REDIS_URL", "redis://127.0.0.1:1/0")
    sampler = LagSampler()
    for _ in range(100):
        sampler.sample({"chat": 1})
    said = [record.getMessage() for record in caplog.records if record.name == traffic_module.__name__]
    assert len(said) == 1
    assert "lag is not recorded" in said[0]


# --- Kept for days ----------------------------------------------------------------------------------------------


def last_full_minute() -> int:
    return (int(time.time()) - 10) // MINUTE * MINUTE - MINUTE


def test_each_minute_that_is_over_becomes_a_row_once(client_of_redis, monkeypatch):
    minute = last_full_minute()
    for second in (0, 30, 59):
        client_of_redis.hset(key_of(minute + second), mapping={"begun": 1, "lag:chat": second})
    client_of_redis.hset(key_of(minute + MINUTE), mapping={"begun": 100, "lag:chat": 100})
    client_of_redis.hset(key_of(int(time.time())), "begun", 1000)
    RollUp().run()
    row = TrafficMinute.objects.get(minute=datetime.fromtimestamp(minute, UTC))
    assert row.counts == {"begun": 3, "lag:chat": 59}
    assert max(each.counts["begun"] for each in TrafficMinute.objects.all()) <= 100
    # Neither an emptied Redis nor another relay, which checked before the row existed, changes anything.
    monkeypatch.setattr(traffic_history, "_after_the_newest", lambda: 0)
    forget(client_of_redis)
    client_of_redis.hset(key_of(minute), "begun", 1)
    RollUp().run()
    row.refresh_from_db()
    assert row.counts["begun"] == 3


def test_rows_are_deleted_after_their_retention(client_of_redis):
    old = datetime.now(UTC) - timedelta(days=9)
    TrafficMinute.objects.create(minute=old, counts={"begun": 1})
    client_of_redis.hset(key_of(last_full_minute()), "begun", 1)
    assert RollUp().run() == 1
    assert not TrafficMinute.objects.filter(minute=old).exists()


def test_days_are_read_by_steps_in_one_query(django_assert_num_queries):
    noon = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp())
    for minute in range(0, 60, 6):
        at = datetime.fromtimestamp(noon + minute * MINUTE, UTC)
        TrafficMinute.objects.create(minute=at, counts={"begun": 1, f"took:{minute}": 1})
    with django_assert_num_queries(1):
        points = read_days(begin=noon, step=1800)
    assert [(each["t"] - noon, each["begun"]) for each in points] == [(0, 5), (1800, 5)]
    assert len(points[0]["took"]) == 3


# --- Shown ------------------------------------------------------------------------------------------------------


@pytest.fixture
def operator(client_of_redis: redis.Redis) -> AsyncClient:
    """An operator whose own sign-up is not in the figures."""
    client = AsyncClient()
    client.force_login(user_with("view_trafficminute"))
    forget(client_of_redis)
    return client


async def events_of(client: AsyncClient, query: str = "") -> AsyncIterator[tuple[str, Any]]:
    response = await client.get(STREAM + query)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/event-stream")
    stream = aiter(response.streaming_content)
    async for text in stream:
        lines = dict(line.split(": ", 1) for line in text.decode().strip().splitlines())
        if "event" in lines:
            yield lines["event"], json.loads(lines["data"])


async def next_of(events: AsyncIterator[tuple[str, Any]]) -> tuple[str, Any]:
    async with asyncio.timeout(PATIENCE):
        return await anext(events)


def test_the_page_has_no_script_or_style_of_its_own_and_few_queries(django_assert_max_num_queries):
    client = client_with("view_trafficminute")
    with django_assert_max_num_queries(9):
        response = client.get(PAGE)
    text = response.content.decode()
    assert "operation/traffic.js" in text
    assert "style=" not in text
    assert 'href="/admin/authsvc/trafficminute/"' in text


def test_staff_without_the_permission_are_refused_the_page_and_the_stream():
    stranger = client_with("view_topic")
    assert stranger.get(PAGE).status_code == 403
    assert stranger.get(STREAM).status_code == 403
    assert Client().get(PAGE).url.startswith("/admin/login/")
    assert Client().get(STREAM).status_code == 403
    assert client_with("view_trafficminute", is_staff=False).get(STREAM).status_code == 403
    assert client_with("view_trafficminute").post(STREAM).status_code == 405
    assert client_with("view_trafficminute").get(f"{STREAM}?span=decade").status_code == 400


async def test_the_live_stream_begins_with_five_minutes_and_continues(operator, client_of_redis):
    second = int(time.time()) - 100
    client_of_redis.hset(key_of(second), mapping={"begun": 4, "verdict:chat:FAIL": 1, f"took:{bucket_of(100)}": 1})
    events = events_of(operator)
    kind, data = await next_of(events)
    assert (kind, data["step"], data["steps"]) == ("points", 1, 300)
    shown = {point["t"]: point for point in data["points"]}
    assert len(shown) == 300
    assert data["begin"] == min(shown)
    assert shown[second]["begun"] == 4
    assert shown[second]["verdicts"] == {"chat": [0, 1]}
    Projection().write_and_wake([a_state()], counts={"begun": 9})
    newer: dict[str, Any] = {}
    while newer.get("begun") != 9:
        kind, data = await next_of(events)
        assert kind == "points"
        assert len(data["points"]) < 60, "what is new, and not all again"
        newer = max((point for point in data["points"]), key=lambda point: point.get("begun", 0))
    await events.aclose()


async def test_the_stream_of_days_comes_from_the_database(operator):
    hour = int(time.time()) // 3600 * 3600
    at = datetime.fromtimestamp(hour - 3600, UTC)
    await TrafficMinute.objects.acreate(minute=at, counts={"begun": 5})
    for query, steps in (("?span=day", 145), ("?span=week", 169)):
        events = events_of(operator, query)
        kind, data = await next_of(events)
        assert (kind, data["steps"]) == ("points", steps)
        assert [point["begun"] for point in data["points"]] == [5]
        assert data["begin"] <= hour - 3600
        await events.aclose()


async def test_an_outage_of_redis_is_reported_and_the_stream_continues_after_it(operator, monkeypatch):
    read = traffic_page.read_seconds
    failures = [redis.ConnectionError("gone"), redis.TimeoutError("slow")]

    def sometimes(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(traffic_page, "read_seconds", sometimes)
    events = events_of(operator)
    kinds = [await next_of(events) for _ in range(3)]
    assert [kind for kind, _ in kinds] == ["problem", "problem", "points"]
    assert "Redis is not responding" in kinds[0][1]
    # The missed points are sent again, all of them.
    assert len(kinds[2][1]["points"]) == 300
    await events.aclose()


@pytest.mark.parametrize("query", ["", "?span=day"])
async def test_a_stream_ends_when_its_process_stops(operator, monkeypatch, query):
    events = events_of(operator, query)
    await next_of(events)
    stopping = threading.Event()
    stopping.set()
    monkeypatch.setattr(traffic_page, "stopping", stopping)
    async with asyncio.timeout(PATIENCE):
        assert [kind async for kind, _ in events if kind != "points"] == []


def test_seconds_without_figures_are_included(client_of_redis):
    assert read_seconds(client_of_redis, 10, 13) == [(10, {}), (11, {}), (12, {})]
