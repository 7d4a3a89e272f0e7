"""SECRET_KEY is replaced in the steps of docs/operations.md, one process after the other, while people use the
pages."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest

from tests.chaos.test_upgrade import api
from tests.client import SERVICES, filled_form, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN
from tests.servers import KafkaServer, PostgresqlServer
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "caddy", "postgresql", "kafka")


@dataclass(frozen=True)
class Opened:
    """A person's state before a step: a login, an opened form, and a ticket of the API."""

    logged_in: OpenerDirector
    form: tuple[OpenerDirector, str]
    ticket: tuple[str, str]


def browser() -> OpenerDirector:
    return build_opener(HTTPCookieProcessor(CookieJar()))


def url_after(visitor: OpenerDirector, url: str, fields: Mapping[str, str] | None = None) -> str:
    """The address of the page on which the visitor is after this request."""
    with visitor.open(url, urlencode(fields).encode() if fields else None, timeout=30) as page:
        return page.url


def page_of(visitor: OpenerDirector, url: str) -> str:
    with visitor.open(url, timeout=30) as page:
        return page.read().decode()


def open_everything(stack: Stack, person: Person) -> Opened:
    logged_in, visitor = browser(), browser()
    form = filled_form(page_of(logged_in, f"{stack.base_url}/login/"), person)
    credentials = {"username": person.user_id, "password": person.password}
    url_after(logged_in, f"{stack.base_url}/login/", form | credentials)
    taken = api(stack.roles["auth-1"].port, "POST", "/user", new_person().form)
    ticket = taken.headers["Location"], taken.headers["Signup-Ticket"]
    return Opened(logged_in, (visitor, page_of(visitor, f"{stack.base_url}/signup/")), ticket)


def assert_all_works(stack: Stack, opened: Opened) -> None:
    assert url_after(opened.logged_in, f"{stack.base_url}/account/").endswith("/account/")
    path, ticket = opened.ticket
    assert api(stack.roles["auth-1"].port, "GET", path, Signup_Ticket=ticket).status == 200
    visitor, page = opened.form
    person = new_person()
    assert "/signup/status/" in url_after(visitor, f"{stack.base_url}/signup/", filled_form(page, person))
    for service in SERVICES:
        eventually(lambda service=service: person.email in {row.email for row in stack.rows(service)})


def restarts(stack: Stack, **keys: str) -> Iterator[None]:
    for name in ("web", "auth-1"):
        stack.roles[name].stop()
        stack.roles[name].env |= keys
        stack.roles[name].start()
        yield


def test_nobody_is_logged_out_and_no_form_or_ticket_is_lost(
    postgresql: PostgresqlServer, kafka: KafkaServer, person: Person
) -> None:
    with Stack.real(postgresql=postgresql, kafka=kafka, auths=1) as stack:
        replace_key(stack, person)


def replace_key(stack: Stack, person: Person) -> None:
    old, new = stack.env["SECRET_KEY"], secrets.token_urlsafe(50)
    assert sign_up(stack, person.form)[-1].statuses == ALL_GREEN
    first = before = open_everything(stack, person)
    for keys in (
        {"SECRET_KEY": old, "SECRET_KEY_FALLBACKS": new},
        {"SECRET_KEY": new, "SECRET_KEY_FALLBACKS": old},
        {"SECRET_KEY": new, "SECRET_KEY_FALLBACKS": ""},
    ):
        for _ in restarts(stack, **keys):
            assert_all_works(stack, before)
            before = open_everything(stack, person)
            # Somebody who is logged in for longer than a step.
            assert url_after(first.logged_in, f"{stack.base_url}/account/").endswith("/account/")
