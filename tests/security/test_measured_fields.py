"""A field of a form or a query that is longer than any valid value is refused, on every page (docs/adr/0038)."""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import AsyncClient, Client

from signup_sync.middleware.page_middleware import FIELD_MAX, SEARCH_MAX, SEARCHES

HEADERS = {"Host": "127.0.0.1"}
# One of a byte each, and one of three each: the limits are in bytes.
LETTERS = ["x", "가"]


def text_of(size: int, letter: str) -> str:
    """`size` bytes."""
    count, rest = divmod(size, len(letter.encode()))
    return letter * count + "x" * rest


def test_the_limits_are_those_of_the_adr():
    assert (FIELD_MAX, SEARCH_MAX) == (4096, 256)


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("name", ["userId", "unknown"])
def test_a_form_field_longer_than_the_limit_is_refused(name: str, letter: str):
    client = Client(headers=HEADERS)
    assert client.post("/signup/", {name: text_of(FIELD_MAX + 1, letter)}).status_code == 400
    # The form is shown again with its errors.
    assert client.post("/signup/", {name: text_of(FIELD_MAX, letter)}).status_code == 422


def test_field_names_and_repeated_values_are_measured_too():
    def post(*fields: tuple[str, str]) -> int:
        kind = "application/x-www-form-urlencoded"
        return Client(headers=HEADERS).post("/signup/", urlencode(fields), content_type=kind).status_code

    assert post(("x" * (FIELD_MAX + 1), "x")) == 400
    assert post(("userId", "mina"), ("userId", "x" * (FIELD_MAX + 1))) == 400
    assert post(("x" * FIELD_MAX, "x"), ("userId", "x" * FIELD_MAX)) == 422


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("letter", LETTERS)
def test_a_query_parameter_longer_than_the_limit_is_refused(method: str, letter: str):
    ask: Any = getattr(Client(headers=HEADERS), method)
    usual = ask("/signup/").status_code
    assert ask("/signup/", query_params={"next": text_of(FIELD_MAX + 1, letter)}).status_code == 400
    assert ask("/signup/", query_params={"next": text_of(FIELD_MAX, letter)}).status_code == usual


@pytest.mark.parametrize("path", ["/admin/authsvc/user/", "/admin/eventbus/deadletter/", "/admin/autocomplete/", "/"])
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("letter", LETTERS)
def test_a_search_term_longer_than_the_limit_is_refused(path: str, name: str, letter: str):
    client = Client(headers=HEADERS)
    usual = client.get(path).status_code
    assert usual == 302
    assert client.get(path, {name: text_of(SEARCH_MAX + 1, letter)}).status_code == 400
    assert client.get(path, {name: text_of(SEARCH_MAX, letter)}).status_code == usual


async def test_asynchronous_views_have_the_same_limits():
    client = AsyncClient(headers=HEADERS)
    assert (await client.post("/signup/", {"userId": "x" * (FIELD_MAX + 1)})).status_code == 400
    assert (await client.get("/signup/", {"q": "x" * (SEARCH_MAX + 1)})).status_code == 400
    assert (await client.get("/signup/", {"q": "x" * SEARCH_MAX})).status_code == 200
