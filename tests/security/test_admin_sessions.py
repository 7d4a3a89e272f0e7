"""A login opens the administration for a shorter time than the account."""

import time
from typing import Any
from unittest import mock

import pytest
from django.test import Client

from authsvc.accounts.api_sessions import may_add_admin
from authsvc.models import User

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "correct horse 9"
INDEX = "/admin/"
HOUR = 3600
SAID = "You logged in some time ago. Log in again to continue in the administration."


@pytest.fixture
def user() -> User:
    return User.objects.create_superuser("mina.k", "mina@example.org", PASSWORD)


def log_in(client: Client, path: str) -> Client:
    assert client.post(path, {"username": "mina.k", "password": PASSWORD}).status_code == 302
    return client


def later(seconds: float) -> Any:
    return mock.patch("authsvc.accounts.admin_sessions.time.time", return_value=time.time() + seconds)


def may_still(client: Client) -> bool:
    return client.get(INDEX).status_code == 200


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_after_an_idle_hour_the_admin_asks_for_a_new_login_and_the_account_page_does_not(user: User, path: str):
    client = log_in(Client(), path)
    assert may_still(client)
    with later(HOUR - 5):
        assert may_still(client)
    with later(2 * HOUR):
        answer = client.get("/admin/authsvc/user/", follow=True)
        page = answer.content.decode()
        assert answer.redirect_chain == [("/admin/login/?next=/admin/authsvc/user/", 302)]
        assert SAID in page
        assert "are not authorized" not in page
        assert client.get("/account/").status_code == 200
        again = client.post(answer.redirect_chain[0][0], {"username": "mina.k", "password": PASSWORD})
        assert again["Location"] == "/admin/authsvc/user/"
        assert may_still(client)


def test_a_session_ends_after_twelve_hours_however_much_it_is_used(user: User):
    client = log_in(Client(), "/login/")
    for half_hours in range(1, 24):
        with later(half_hours * HOUR / 2):
            assert may_still(client)
    with later(12 * HOUR + 1):
        assert not may_still(client)


def test_requests_by_scripts_do_not_prolong_the_session(user: User):
    client = log_in(Client(), "/login/")
    for minutes in (20, 40, 59):
        with later(minutes * 60):
            assert client.get(INDEX, headers={"sec-fetch-dest": "empty"}).status_code == 200
    with later(HOUR + 1):
        assert not may_still(client)


def test_a_session_without_a_login_time_has_to_log_in_again(user: User):
    client = log_in(Client(), "/login/")
    session = client.session
    del session["logged_in_at"]
    session.save()
    assert not may_still(client)


def test_a_form_posted_after_the_session_ended_changes_nothing(user: User):
    client = log_in(Client(), "/login/")
    path = f"/admin/authsvc/user/{user.pk}/delete/"
    with later(2 * HOUR):
        assert client.post(path, {"post": "yes"})["Location"].startswith("/admin/login/")
    assert User.objects.exists()


def test_the_api_adds_no_administrator_after_the_session_ended(user: User):
    client = log_in(Client(), "/login/")
    token = client.get("/signup/").cookies["csrftoken"].value
    cookies = {name: morsel.value for name, morsel in client.cookies.items()} | {"csrftoken": token}
    headers = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), "x-csrftoken": token}
    scope = {
        "type": "http", "method": "POST", "path": "/user", "query_string": b"", "client": ("192.0.2.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    assert may_add_admin(scope, user_id="new")
    with later(2 * HOUR):
        assert not may_add_admin(scope, user_id="new")
