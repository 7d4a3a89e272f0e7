"""A session's cookie: its attributes, its changes, and its end."""

import string

import pytest
from django.test import Client

from authsvc.models import User

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "correct horse 9"
SHOWN_TO_OWNERS = ("/account/", "/account/password/", "/account/two-factor/")


@pytest.fixture
def user() -> User:
    return User.objects.create_superuser("mina.k", "mina@example.org", PASSWORD)


def log_in(client: Client, path: str = "/login/") -> str:
    """Log in on the page, and return the session's key."""
    assert client.post(path, {"username": "mina.k", "password": PASSWORD}).status_code == 302
    return client.cookies["sessionid"].value


def with_session(key: str) -> Client:
    """A client with this stolen session key."""
    client = Client()
    client.cookies["sessionid"] = key
    return client


def is_logged_in(client: Client) -> bool:
    answers = {client.get(path).status_code for path in (*SHOWN_TO_OWNERS, "/admin/")}
    assert len(answers) == 1, "one page knows the session and another one does not"
    return answers == {200}


def test_a_sessions_key_is_random_and_has_more_than_128_bits(user: User):
    keys = [log_in(Client()) for _ in range(20)]
    assert len(set(keys)) == len(keys)
    # 32 characters of 36 kinds are 165 bits, if all characters are equally likely at each position.
    assert {len(key) for key in keys} == {32}
    assert set("".join(keys)) <= set(string.ascii_lowercase + string.digits)
    assert all(len({key[place] for key in keys}) > 5 for place in range(32))


@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_a_login_makes_a_new_session_and_ends_the_one_before(user: User, path: str):
    client = Client()
    session = client.session
    session["planted"] = "by somebody else"
    session.save()
    planted = session.session_key
    client.cookies["sessionid"] = planted
    first = log_in(client, path)
    assert first != planted
    assert not is_logged_in(with_session(planted))
    assert client.session.session_key == first
    second = log_in(client, path)
    assert second != first
    assert not is_logged_in(with_session(first))
    assert is_logged_in(with_session(second))


@pytest.mark.parametrize("path", ["/logout/", "/admin/logout/"])
def test_after_logout_a_kept_session_opens_nothing_and_the_browser_forgets(user: User, path: str):
    client = Client()
    key = log_in(client)
    assert is_logged_in(with_session(key))
    answer = client.post(path)
    assert not is_logged_in(with_session(key))
    assert not is_logged_in(client)
    assert answer.cookies["sessionid"].value == ""
    assert answer["Clear-Site-Data"] == '"storage"'


@pytest.mark.parametrize("method", ["get", "head"])
def test_a_link_to_the_logout_page_ends_no_session(user: User, method: str):
    client = Client()
    log_in(client)
    for path in ("/logout/", "/admin/logout/"):
        answer = getattr(client, method)(path)
        assert "Clear-Site-Data" not in answer
    assert is_logged_in(client)


def test_a_deactivated_or_deleted_account_has_no_session(user: User):
    clients = [Client(), Client()]
    for client in clients:
        log_in(client)
    User._base_manager.update(is_active=False)
    assert not any(is_logged_in(client) for client in clients)
    assert Client().post("/login/", {"username": "mina.k", "password": PASSWORD}).status_code == 200
    User._base_manager.update(is_active=True)
    log_in(clients[0])
    User.objects.all().delete()
    assert not is_logged_in(clients[0])


def test_a_new_password_ends_every_other_session(user: User):
    mine, other = Client(), Client()
    for client in (mine, other):
        log_in(client)
    fields = {"old_password": PASSWORD, "new_password1": "another horse 9", "new_password2": "another horse 9"}
    assert mine.post("/account/password/", fields).status_code == 302
    assert is_logged_in(mine)
    assert not is_logged_in(other)


def test_an_administrator_ends_the_sessions_of_another_account(user: User):
    victim = User.objects.create_user("kim", "kim@example.org", PASSWORD)
    owner, boss = Client(), Client()
    owner.force_login(victim)
    assert owner.get("/account/").status_code == 200
    log_in(boss)
    passwords = {"usable_password": "true", "password1": "another horse 9", "password2": "another horse 9"}
    assert boss.post(f"/admin/authsvc/user/{victim.pk}/password/", passwords).status_code == 302
    assert owner.get("/account/").status_code == 302
    assert is_logged_in(boss)
