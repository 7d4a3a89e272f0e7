"""A service in SIGNUP_SERVICES that no process runs is reported in the log and on the admin's start page."""

import logging
import secrets
import socket
from collections.abc import Iterator

import pytest
import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from eventbus.inspection import attendance
from eventbus.inspection.attendance import Attendance
from eventbus.messages import Subscription
from eventbus.topics import ensure_topics
from runtime.processes import instances
from runtime.processes.health import Heartbeat
from runtime.processes.instances import INDEX, InstanceReport
from tests.broker import RecordingHandler, consuming
from tests.waiting import eventually

pytestmark = pytest.mark.needs("redis", "broker")


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation without any running process."""
    monkeypatch.setattr(settings, "KAFKA_PREFIX", f"prefix-{secrets.token_hex(4)}-")
    monkeypatch.setattr(instances, "TOLD_EVERY", 0.05)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(INDEX)
        yield
        client.delete(INDEX)


def running(service: str) -> InstanceReport:
    return InstanceReport(f"consumer of {service}", Heartbeat())


def test_a_service_without_a_process_is_reported_once_and_so_is_its_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "eventbus.inspection.attendance")
    found = Attendance(grace=0)
    with running("auth"), running("customer"):

        def absent() -> list[str]:
            found.check()
            return found.absent

        eventually(lambda: absent() == ["chat"])
        eventually(lambda: absent() == ["chat"])
        with running("chat"):
            eventually(lambda: absent() == [])
    told = [each for each in caplog.messages if "chat" in each]
    assert told == [
        "the service chat in SIGNUP_SERVICES is not running anywhere: its lights stay orange. Please start "
        "`manage.py consume_events chat`, or remove it from SIGNUP_SERVICES.",
        "chat is running now",
    ]


def test_a_restarting_service_is_not_reported() -> None:
    found = Attendance(grace=60)
    found.check()
    assert found.absent == []


@pytest.mark.needs("kafka")
def test_a_participant_in_another_language_is_recognised_by_its_group() -> None:
    stranger = Subscription(group="elsewhere", topics=("asked",), handle=RecordingHandler())
    settings.SIGNUP_SERVICES = ["auth", "elsewhere"]
    found = Attendance(grace=0)
    try:
        ensure_topics(stranger.every_topic)
        with running("auth"):

            def absent() -> list[str]:
                found.check()
                return found.absent

            eventually(lambda: absent() == ["elsewhere"])
            with consuming(stranger):
                eventually(lambda: absent() == [])
    finally:
        settings.SIGNUP_SERVICES = ["auth", "chat", "customer"]


def test_while_redis_or_kafka_is_down_the_last_result_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Attendance(grace=0)
    found.check()
    assert found.absent == settings.SIGNUP_SERVICES
    for module in (attendance, instances):
        monkeypatch.setattr(module, "ANSWERS_WITHIN", 0.2)
    with socket.socket() as frozen:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen()
        port = frozen.getsockname()[1]
        # Frozen: it takes connections and never answers.
        monkeypatch.setattr(settings, "REDIS_URL", f"redis://127.0.0.1:{port}")
        monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{port}")
        found.check()
        assert found.absent == settings.SIGNUP_SERVICES
        unknown = Attendance(grace=0)
        unknown.check()
        assert unknown.absent == []


@pytest.mark.django_db(transaction=True, databases=["default", "chat", "customer"])
@pytest.mark.parametrize(
    ("language", "words"),
    [("en", "Services without a running process, whose lights stay orange: chat"), ("ko", "서비스: chat")],
)
def test_the_admins_start_page_shows_services_without_a_process(
    monkeypatch: pytest.MonkeyPatch, language: str, words: str
) -> None:
    found = Attendance(grace=0)
    monkeypatch.setattr("signup_sync.administration.site.attendance", found)
    client = Client(headers={"accept-language": language})
    client.force_login(get_user_model().objects.create_superuser("root-user", "root@example.org", "correct horse 9"))
    assert words not in client.get("/admin/").content.decode()
    with running("auth"), running("customer"):

        def is_shown() -> bool:
            found.check()
            return words in client.get("/admin/").content.decode()

        eventually(is_shown)
