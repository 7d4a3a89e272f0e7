"""The middleware of the pages: the headers that it adds, the requests that it refuses, and the thread that it ends."""

import asyncio
import threading

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.urls import path

from signup_sync.middleware import page_middleware
from tests.waiting import PATIENCE, eventually_async


async def test_a_page_has_the_policies_and_djangos_headers():
    answer = await AsyncClient().get("/signup/")
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"] == page_middleware.POLICY
    assert answer.headers["Permissions-Policy"] == page_middleware.PERMISSIONS
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Content-Language"] == "en"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
async def test_a_form_without_its_token_is_refused(kind):
    client = AsyncClient(enforce_csrf_checks=True)
    assert (await client.post("/signup/", b"--b--", content_type=kind)).status_code == 403


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


async def waits(request: HttpRequest) -> HttpResponse:
    """A view that answers once the thread of its middleware has ended."""
    await eventually_async(lambda: asyncio.sleep(0, not request.new_threads()))
    return HttpResponse(f"{len(request.new_threads())} threads")


def blocks(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{len(request.new_threads())} threads")


urlpatterns = [path("waits/", waits), path("blocks/", blocks)]


@pytest.mark.parametrize(("url", "held"), [("/waits/", 0), ("/blocks/", 1)])
async def test_only_a_synchronous_view_holds_a_thread(settings, url: str, held: int) -> None:
    settings.ROOT_URLCONF = __name__
    before = threads()
    application = get_asgi_application()
    application.request_class = type("Request", (ASGIRequest,), {"new_threads": lambda _: threads() - before})
    scope = {"type": "http", "method": "GET", "path": url, "query_string": b"", "headers": [(b"host", b"127.0.0.1")]}
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "http.request"})
    start = await communicator.receive_output(PATIENCE)
    body = await communicator.receive_output(PATIENCE)
    await communicator.wait(PATIENCE)
    assert (start["status"], body["body"]) == (200, f"{held} threads".encode())
    assert dict(start["headers"])[b"X-Frame-Options"] == b"DENY", "the middleware runs after the view too"
