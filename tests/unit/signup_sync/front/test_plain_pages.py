"""The generic error pages: an explanation in the site's design."""

import pytest
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.test import AsyncClient, AsyncRequestFactory
from django.views import defaults

from tests.unit.signup_sync.front.conftest import HOST

pytestmark = pytest.mark.usefixtures("front")


def assert_says(response: HttpResponse, status: int, *words: str) -> None:
    page = response.content.decode()
    assert response.status_code == status
    for each in (*words, "/static/front/site.css", '<a class="brand" href="/signup/">', "<h1>"):
        assert each in page


async def test_a_body_that_is_too_long_gets_a_plain_page(client: AsyncClient) -> None:
    response = await client.post("/signup/", {"userName": "a" * 10_000_000})
    assert_says(response, 400, "Go back", "too long")
    assert len(response.content) < 10_000


async def test_a_form_without_a_csrf_token_gets_a_plain_page() -> None:
    client = AsyncClient(enforce_csrf_checks=True, headers={"Host": HOST})
    assert_says(await client.post("/signup/", {}), 403, "cookies", "reload the page")


async def test_an_unknown_path_gets_a_plain_page(client: AsyncClient) -> None:
    assert_says(await client.get("/no-such-page/<b>"), 404, "address")


async def test_a_forbidden_page_gets_a_plain_page() -> None:
    request = AsyncRequestFactory().get("/")
    assert_says(defaults.permission_denied(request, PermissionDenied("why")), 403, "another account")


async def test_an_error_of_ours_needs_no_context() -> None:
    assert_says(defaults.server_error(AsyncRequestFactory().get("/")), 500, "our fault", "Try again")
