"""Too many logins or password resets from one address are refused, with the time to wait (docs/adr/0033)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core import mail
from django.test import Client

from authsvc.mail import mail_worker
from authsvc.metrics import LIMITED
from authsvc.models import User
from authsvc.rate_limits import attempt_limits
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("redis")]

PASSWORD = "correct horse 9"
MINA = "192.0.2.1"
JUN = "192.0.2.2"
KOREAN = {"accept-language": "ko"}


@pytest.fixture(autouse=True)
def own_counts(settings) -> Iterator[None]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
    settings.RATE_LIMIT_LOGIN = settings.RATE_LIMIT_PASSWORD = 2
    attempt_limits.cache_clear()
    yield
    attempt_limits.cache_clear()


@pytest.fixture(autouse=True)
def user() -> User:
    return User.objects.create_superuser("mina.k", "mina@example.org", PASSWORD)


def log_in(address: str = MINA, password: str = "wrong", path: str = "/login/", **headers: str) -> Any:
    fields = {"username": "mina.k", "password": password}
    return Client(headers=headers, REMOTE_ADDR=address).post(path, fields)


def ask_for_a_password(address: str = MINA, **headers: str) -> Any:
    return Client(headers=headers, REMOTE_ADDR=address).post("/password/", {"email": "mina@example.org"})


def test_an_address_over_the_limit_learns_when_to_try_again_and_other_addresses_are_not_limited():
    before = LIMITED.labels("login")._value.get()
    assert [log_in().status_code for _ in range(2)] == [200, 200]
    # Refuse the right password too, or the answer would reveal which one it is.
    refused = log_in(password=PASSWORD)
    page = refused.content.decode()
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert re.search(
        r"There were too many login attempts from your network just now. Try again in \d+ seconds?\.", page
    )
    assert 'value="mina.k"' in page
    assert PASSWORD not in page
    assert "_auth_user_id" not in refused.client.session
    assert log_in(JUN, PASSWORD).status_code == 302
    assert LIMITED.labels("login")._value.get() == before + 1


def test_both_logins_count_together():
    assert log_in(password=PASSWORD).status_code == 302
    assert log_in(path="/admin/login/").status_code == 200
    refused = log_in(path="/admin/login/", password=PASSWORD)
    assert (refused.status_code, "Retry-After" in refused) == (429, True)
    assert "too many login attempts" in refused.content.decode()
    assert log_in().status_code == 429


def test_requests_for_the_pages_are_not_counted():
    for path in ("/login/", "/admin/login/", "/password/"):
        assert [Client(REMOTE_ADDR=MINA).get(path).status_code for _ in range(3)] == [200] * 3
    assert log_in(password=PASSWORD).status_code == 302


def test_mails_requested_from_one_address_are_limited():
    assert [ask_for_a_password().status_code for _ in range(3)] == [302, 302, 429]
    refused = ask_for_a_password()
    assert "There were too many password reset requests from your network just now." in refused.content.decode()
    eventually(lambda: mail_worker().waiting == 0)
    assert len(mail.outbox) == 2
    assert ask_for_a_password(JUN).status_code == 302
    assert log_in(password=PASSWORD).status_code == 302


def test_the_limit_is_explained_in_korean():
    for _ in range(2):
        log_in()
        ask_for_a_password()
    assert "방금 같은 네트워크에서 로그인 시도가 너무 많았습니다." in log_in(**KOREAN).content.decode()
    assert (
        "방금 같은 네트워크에서 비밀번호 재설정 요청이 너무 많았습니다."
        in ask_for_a_password(**KOREAN).content.decode()
    )


def test_without_a_limit_nothing_is_counted(settings):
    settings.RATE_LIMIT_LOGIN = settings.RATE_LIMIT_PASSWORD = 0
    assert {log_in().status_code for _ in range(5)} == {200}
    assert {ask_for_a_password().status_code for _ in range(5)} == {302}


def test_while_redis_is_down_logins_are_not_limited_and_a_warning_is_logged(settings, caplog):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    attempt_limits.cache_clear()
    assert [log_in(password=PASSWORD).status_code for _ in range(3)] == [302] * 3
    assert "Redis is unavailable: logins and new passwords are let through uncounted" in caplog.text
