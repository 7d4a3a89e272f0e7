"""Wrong passwords for one account from one address are limited for a while; from other addresses, its owner can log
in."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from django.db import connections
from django.test import Client

from authsvc.models import User
from authsvc.rate_limits import attempt_limits

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("redis")]

PASSWORD = "correct horse 9"
ATTACKER, HOME, OFFICE = "192.0.2.66", "192.0.2.1", "192.0.2.2"
LIMIT = 5
WORDS = "There were too many wrong passwords for this account from your network. Try again in"


@pytest.fixture(autouse=True)
def own_counts(settings) -> Iterator[None]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
    settings.RATE_LIMIT_FAILED_LOGIN = LIMIT
    settings.RATE_LIMIT_LOGIN = 0
    attempt_limits.cache_clear()
    yield
    attempt_limits.cache_clear()


@pytest.fixture(autouse=True)
def user() -> User:
    return User.objects.create_superuser("mina.k", "mina@example.org", PASSWORD)


def log_in(
    address: str, password: str = "wrong", user_id: str = "mina.k", path: str = "/login/", **headers: str
) -> Any:
    return Client(headers=headers, REMOTE_ADDR=address).post(path, {"username": user_id, "password": password})


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None, str | None]]:
    """The security events: name, actor and address."""
    return [
        (record.getMessage(), getattr(record, "actor", None), getattr(record, "address", None))
        for record in caplog.records
        if record.name == "security"
    ]


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_after_too_many_wrong_passwords_an_address_waits_and_the_owner_logs_in_from_another(path: str):
    assert [log_in(ATTACKER, path=path).status_code for _ in range(LIMIT)] == [200] * LIMIT
    # The right password too: else the answer would tell which it is.
    for password in ("wrong", PASSWORD):
        refused = log_in(ATTACKER, password, path=path)
        assert refused.status_code == 429
        assert WORDS in refused.content.decode()
        assert 0 < int(refused["Retry-After"]) <= 15 * 60
        assert "_auth_user_id" not in refused.client.session
    assert log_in(HOME, PASSWORD, path=path).status_code == 302


def test_all_spellings_of_a_user_id_and_both_login_pages_count_together():
    for user_id, path in (("mina.k", "/login/"), ("MINA.K", "/admin/login/"), ("ｍｉｎａ.k", "/login/")):
        log_in(ATTACKER, user_id=user_id, path=path)
    assert [log_in(ATTACKER).status_code for _ in range(3)] == [200, 200, 429]
    assert log_in(ATTACKER, user_id="MINA.K", path="/admin/login/").status_code == 429


def test_an_account_that_does_not_exist_is_answered_the_same():
    for _ in range(LIMIT):
        assert log_in(ATTACKER, user_id="nobody").status_code == 200
    assert WORDS in log_in(ATTACKER, user_id="nobody").content.decode()
    assert log_in(ATTACKER, PASSWORD).status_code == 302, "another account from the same address goes on"


def test_ninety_guesses_from_ninety_addresses_are_all_logged_and_lock_nobody_out(caplog: pytest.LogCaptureFixture):
    addresses = [f"198.51.100.{number}" for number in range(90)]
    with caplog.at_level(logging.INFO, "security"):
        assert {log_in(address).status_code for address in addresses} == {200}
        assert events(caplog) == [("login_failed", "mina.k", address) for address in addresses]
        assert log_in(HOME, PASSWORD).status_code == 302


def test_concurrent_attempts_are_all_counted():
    def attempt(_: int) -> int:
        try:
            return log_in(ATTACKER).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(attempt, range(20)))
    assert statuses.count(200) == LIMIT


def test_the_right_password_forgets_the_wrong_ones_before_it():
    for _ in range(3):
        assert [log_in(HOME).status_code for _ in range(LIMIT - 1)] == [200] * (LIMIT - 1)
        assert log_in(HOME, PASSWORD).status_code == 302


def test_a_lock_ends_by_itself(settings):
    for _ in range(LIMIT + 1):
        log_in(ATTACKER)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        lives = [client.ttl(key) for key in client.keys("*failed_login*")]
    assert lives
    # Two windows of 15 minutes: the sliding window weighs the one before.
    assert all(0 < life <= 2 * 15 * 60 for life in lives)


def test_wrong_old_passwords_at_a_change_are_counted(user: User, caplog: pytest.LogCaptureFixture):
    client = Client(REMOTE_ADDR=ATTACKER)
    client.force_login(user)
    new = {"new_password1": "quite another w0rd", "new_password2": "quite another w0rd"}
    with caplog.at_level(logging.INFO, "security"):
        for _ in range(LIMIT):
            assert client.post("/account/password/", new | {"old_password": "wrong"}).status_code == 200
        refused = client.post("/account/password/", new | {"old_password": PASSWORD})
    assert (refused.status_code, "Retry-After" in refused) == (429, True)
    assert WORDS in refused.content.decode()
    assert user.check_password(PASSWORD)
    assert events(caplog)[1:] == [("login_failed", "mina.k", ATTACKER)] * LIMIT + [
        ("login_throttled", "mina.k", ATTACKER)
    ]
    # The limit is shared with the login of the same account and address; other addresses are not affected.
    assert log_in(ATTACKER, PASSWORD).status_code == 429
    client = Client(REMOTE_ADDR=OFFICE)
    client.force_login(user)
    assert client.post("/account/password/", new | {"old_password": PASSWORD}).status_code == 302


def test_wrong_old_passwords_at_the_admins_password_page_are_counted(user: User):
    client = Client(REMOTE_ADDR=ATTACKER)
    client.force_login(user)
    page = "/admin/password_change/"
    fields = {"old_password": PASSWORD, "new_password1": "quite another w0rd", "new_password2": "quite another w0rd"}
    assert client.get(page)["Location"] == client.post(page, fields)["Location"] == "/account/password/"
    user.refresh_from_db()
    assert user.check_password(PASSWORD)


def test_events_name_accounts_and_never_what_else_was_typed(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "security"):
        log_in(HOME, user_id="my-secret-password-in-the-wrong-field")
        log_in(HOME, password="canary-password")
        client = log_in(HOME, PASSWORD).client
        client.post("/logout/")
        for _ in range(LIMIT + 1):
            log_in(ATTACKER)
    assert events(caplog) == [
        ("login_failed", None, HOME),
        ("login_failed", "mina.k", HOME),
        ("login", "mina.k", HOME),
        ("logout", "mina.k", HOME),
        *[("login_failed", "mina.k", ATTACKER)] * LIMIT,
        ("login_throttled", "mina.k", ATTACKER),
    ]
    said = " ".join(str(vars(record)) for record in caplog.records)
    assert "secret-password" not in said
    assert "canary" not in said


def test_an_admin_login_of_a_user_who_is_no_staff_fails_and_is_logged(caplog: pytest.LogCaptureFixture):
    User.objects.create_user("jun", "jun@example.org", PASSWORD)
    with caplog.at_level(logging.INFO, "security"):
        assert log_in(HOME, PASSWORD, user_id="jun", path="/admin/login/").status_code == 200
    [record] = [record for record in caplog.records if record.name == "security"]
    assert (record.getMessage(), record.actor) == ("login_failed", "jun")
    assert record.detail == "this account may not log in here"


def test_while_redis_is_down_nobody_is_limited_and_a_warning_is_logged(settings, caplog: pytest.LogCaptureFixture):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    attempt_limits.cache_clear()
    assert [log_in(ATTACKER).status_code for _ in range(LIMIT + 2)] == [200] * (LIMIT + 2)
    assert log_in(ATTACKER, PASSWORD).status_code == 302
    assert "Redis is unavailable: logins and new passwords are let through uncounted" in caplog.text


def test_the_throttle_is_explained_in_korean():
    for _ in range(LIMIT):
        log_in(ATTACKER)
    page = log_in(ATTACKER, **{"accept-language": "ko"}).content.decode()
    assert "같은 네트워크에서 이 계정의 비밀번호를 너무 여러 번 틀렸습니다." in page
