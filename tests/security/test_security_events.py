"""Security events have stable names, and the list of these names is complete."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, get_args
from unittest import mock
from uuid import uuid4

import pytest
import redis
from django.contrib.auth.tokens import default_token_generator
from django.core import mail
from django.core.management import call_command
from django.test import Client
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from authsvc.accounts.two_factor import devices
from authsvc.mail import mail_worker
from authsvc.models import User
from authsvc.rate_limits import attempt_limits
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.registration import NewSignUp, register_users
from eventbus.models import DeadLetter
from eventbus.topics import ensure_topics
from livesettings.models import ROW, Overrides
from livesettings.values import take
from runtime import logs
from runtime.security_log import SecurityEvent, operator
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
PASSWORD, NEW = "correct horse 9", "quite another w0rd"
HOME = "192.0.2.1"

Line = tuple[str, str | None, str | None, str | None, str | None]


class Lines(logging.Handler):
    """The lines as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logs.formatter("json"))
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def take(self) -> list[Line]:
        """Return event, actor, subject, address and detail of each line since the last call."""
        parsed = [json.loads(text) for text in self.texts]
        self.texts.clear()
        return [tuple(line.get(name) for name in ("event", "actor", "subject", "address", "detail")) for line in parsed]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("security")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def root(lines: Lines) -> Client:
    client = Client(REMOTE_ADDR=HOME)
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", PASSWORD))
    lines.take()
    return client


@pytest.fixture
def mina() -> User:
    return User.objects.create_user("mina.k", "mina@example.org", PASSWORD)


def test_the_list_has_every_event_and_no_other():
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "security-events.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(get_args(SecurityEvent))


@pytest.mark.django_db(transaction=True)
def test_password_events_are_logged(lines: Lines, mina: User, root: Client):
    client = Client(REMOTE_ADDR=HOME)
    client.force_login(mina)
    lines.take()
    new = {"new_password1": NEW, "new_password2": NEW}
    client.post("/account/password/", new | {"old_password": PASSWORD})
    assert lines.take() == [("password_changed", "mina.k", "mina.k", HOME, None)]
    for email in ("mina@example.org", "nobody@example.org"):
        Client(REMOTE_ADDR=HOME).post("/password/", {"email": email})
    eventually(lambda: mail_worker().waiting == 0)
    assert lines.take() == [
        ("password_reset_requested", None, "mina.k", HOME, None),
        ("password_reset_requested", None, None, HOME, "no account has this email address"),
    ]
    mina.refresh_from_db()
    path = f"/password/{urlsafe_base64_encode(force_bytes(mina.pk))}/{default_token_generator.make_token(mina)}/"
    guest = Client(REMOTE_ADDR=HOME)
    place = guest.get(path, follow=True).redirect_chain[-1][0]
    guest.post(place, {"new_password1": PASSWORD, "new_password2": PASSWORD})
    assert lines.take() == [("password_reset", "mina.k", None, HOME, None)]
    fields = {"password1": NEW, "password2": NEW, "usable_password": "true"}
    root.post(f"/admin/authsvc/user/{mina.pk}/password/", fields)
    assert lines.take() == [("password_changed", "root-user", "mina.k", HOME, None)]
    root.post(f"/admin/authsvc/user/{mina.pk}/password/", {"usable_password": "false", "unset-password": "1"})
    assert lines.take() == [("password_changed", "root-user", "mina.k", HOME, "login by password disabled")]
    with mock.patch("getpass.getpass", return_value=PASSWORD):
        call_command("changepassword", "mina.k", stdout=StringIO())
    assert lines.take() == [("password_changed", operator(), "mina.k", None, None)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.needs("redis")
def test_too_many_requests_for_a_new_password_are_logged(lines: Lines, settings: Any):
    settings.RATE_LIMIT_PASSWORD = 1
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
    attempt_limits.cache_clear()
    for _ in range(2):
        Client(REMOTE_ADDR=HOME).post("/password/", {"email": "nobody@example.org"})
    eventually(lambda: mail_worker().waiting == 0)
    assert ("password_reset_throttled", None, None, HOME, "password") in lines.take()
    attempt_limits.cache_clear()


@pytest.mark.django_db(transaction=True)
@pytest.mark.needs("redis")
def test_too_many_links_to_one_mailbox_are_logged(lines: Lines, mina: User, settings: Any):
    """The response is the usual one: it must not reveal which addresses have an account."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
    attempt_limits.cache_clear()

    def ask(*addresses: str) -> list[str]:
        asked = [Client(REMOTE_ADDR=address).post("/password/", {"email": "Mina@example.org"}) for address in addresses]
        assert {answer.status_code for answer in asked} == {302}
        eventually(lambda: mail_worker().waiting == 0)
        return [event for event, *_ in lines.take()]

    assert ask(*[HOME] * 5) == ["password_reset_requested"] * 3 + ["password_reset_throttled"] * 2
    assert len(mail.outbox) == 3
    # The owner, who is elsewhere, still gets a link; all together get twelve.
    others = [f"198.51.100.{n}" for n in range(11)]
    assert ask(*others) == ["password_reset_requested"] * 9 + ["password_reset_throttled"] * 2
    assert len(mail.outbox) == 12
    settings.RATE_LIMIT_CONFIRM = 0
    Client().post("/password/", {"email": "mina@example.org"})
    eventually(lambda: len(mail.outbox) == 13)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        # Later tests of this run ask for links to the same mailbox.
        client.flushdb()
    attempt_limits.cache_clear()


@pytest.mark.django_db(transaction=True)
@pytest.mark.needs("redis")
def test_changes_of_live_settings_are_logged(lines: Lines, root: Client):
    Overrides.objects.get_or_create(pk=ROW)
    page = f"/admin/livesettings/overrides/{ROW}/change/"
    assert root.post(page, {"seen": 0, "RATE_LIMIT_LOGIN": 7, "SIGNUP_OPEN": "no"}).status_code == 302
    assert sorted(lines.take()) == [
        ("settings_changed", "root-user", "RATE_LIMIT_LOGIN", HOME, "0 → 7"),
        ("settings_changed", "root-user", "SIGNUP_OPEN", HOME, "yes → no"),
    ]
    root.post(page, {"seen": 1, "RATE_LIMIT_LOGIN": 7, "SIGNUP_OPEN": "no"})
    assert lines.take() == [], "nothing was changed"
    take({})


@pytest.mark.django_db(transaction=True)
@pytest.mark.needs("broker", "redis")
def test_replays_are_logged(lines: Lines, root: Client, settings: Any):
    settings.KAFKA_PREFIX = f"events-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    new = NewSignUp(
        signup_id=uuid4(), user_id="jun", email="jun@example.org", user_name="Jun", role="ROLE_USER", password="none"
    )
    register_users([new])
    chosen = {"action": "replay_chosen", "_selected_action": [str(new.signup_id)], "service": "chat"}
    root.post("/admin/authsvc/eventtransaction/", chosen)
    assert lines.take() == [("replay", "root-user", None, HOME, "1 sign-ups, chat")]
    call_command("replay_signups", "--user-id", "jun", stdout=StringIO())
    assert lines.take() == [("replay", operator(), None, None, "1 sign-ups, changes and removals, every service")]
    call_command("replay_signups", "--user-id", "jun", "--dry-run", stdout=StringIO())
    assert lines.take() == []


@pytest.mark.django_db(transaction=True)
def test_actions_on_dead_letters_are_logged(lines: Lines, root: Client):
    letters = [
        DeadLetter.objects.create(
            letter_topic="asked.chat.dlt", letter_partition=0, letter_offset=number, topic="asked", group="chat",
            put_aside_at=datetime(2026, 3, 1, tzinfo=UTC), key=b"kim", value=b"{}", error="ValueError", message="no",
        )
        for number in range(2)
    ]  # fmt: skip
    first, second = (str(letter.pk) for letter in letters)
    chosen = {"action": "discard_chosen", "_selected_action": [first], "reason": "nothing to save"}
    root.post("/admin/eventbus/deadletter/", chosen)
    assert lines.take() == [("dead_letter_handled", "root-user", first, HOME, "discarded")]
    call_command("dead_letters", "discard", second, "--reason", "nothing to save", stdout=StringIO())
    assert lines.take() == [("dead_letter_handled", operator(), second, None, "discarded")]


@pytest.mark.django_db(transaction=True)
def test_events_of_commands_name_the_operator(lines: Lines, mina: User, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("USER_ID", "by-shell"), ("EMAIL", "shell@example.org"), ("PASSWORD", NEW)):
        monkeypatch.setenv(f"ADMIN_{name}", value)
    call_command("make_admin", stdout=StringIO())
    rights = "is_staff, is_superuser"
    assert lines.take() == [("privilege_granted", operator(), "by-shell", None, rights)]
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", NEW)
    call_command("createsuperuser", interactive=False, verbosity=0, user_id="by-django", email="django@example.org")
    assert lines.take() == [("privilege_granted", operator(), "by-django", None, rights)]
    devices.begin_setup(mina)
    devices.turn_on(devices.device_in_setup(mina))
    call_command("reset_two_factor", "mina.k", stdout=StringIO())
    assert lines.take() == [("two_factor_reset", operator(), "mina.k", None, None)]


@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_security_events_are_logged_at_every_log_level(level: str, tmp_path: Path):
    program = (
        "import logging; from runtime.security_log import log_security_event; "
        "logging.getLogger('authsvc').info('of no matter'); log_security_event('login', actor='mina.k')"
    )
    environment = os.environ | {"LOG_LEVEL": level, "LOG_FORMAT": "json", "DATA_DIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "manage.py"), "shell", "--no-imports", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    [line] = done.stderr.splitlines()
    assert (json.loads(line)["event"], json.loads(line)["actor"]) == ("login", "mina.k")
