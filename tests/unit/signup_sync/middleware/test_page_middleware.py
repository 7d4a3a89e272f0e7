"""Django's middleware, run where it is called."""

import threading

import pytest
from django.conf import settings
from django.contrib import messages
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.handlers import base
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.test import AsyncClient, AsyncRequestFactory
from django.utils import deprecation
from django.utils.module_loading import import_string

from signup_sync.middleware import page_middleware
from signup_sync.middleware.page_middleware import InLoop, Message, Session

CHAIN = [import_string(name) for name in settings.MIDDLEWARE]


@pytest.fixture(autouse=True)
def without_a_database(settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"


@pytest.fixture
def hops(monkeypatch) -> list[str]:
    """What went through a thread."""
    hops = []

    def noting(hook, **how):
        hops.append(hook.__qualname__)
        return to_thread(hook, **how)

    to_thread = page_middleware.sync_to_async
    # Where middleware is called from: ours, Django's own, and the handler.
    for module in (page_middleware, deprecation, base):
        monkeypatch.setattr(module, "sync_to_async", noting)
    return hops


async def answered(view, path: str = "/") -> HttpResponse:
    """What the view's request ends with, behind sessions and messages."""

    async def in_loop(request):
        return view(request)

    return await Session(Message(in_loop))(AsyncRequestFactory().get(path))


def test_all_of_them_are_derived_from_djangos_and_run_in_the_loop():
    assert all(issubclass(each, InLoop) for each in CHAIN)
    names = {base.__name__ for each in CHAIN for base in each.__mro__}
    assert names >= {"SecurityMiddleware", "CsrfViewMiddleware", "XFrameOptionsMiddleware"}


async def test_a_page_takes_none_of_them_through_a_thread(hops):
    answer = await AsyncClient().get("/signup/")
    assert (answer.status_code, hops) == (200, [])
    assert answer.headers["Content-Security-Policy"] == page_middleware.POLICY
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Content-Language"] == "en"


async def test_a_form_without_its_token_is_refused(monkeypatch):
    threads = []
    check = CsrfViewMiddleware.process_view

    def noting(*arguments):
        threads.append(threading.get_ident())
        return check(*arguments)

    monkeypatch.setattr(CsrfViewMiddleware, "process_view", noting)
    client = AsyncClient(enforce_csrf_checks=True)
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
        assert (await client.post("/signup/", b"--b--", content_type=kind)).status_code == 403
    # What may carry a large file is read in a thread.
    assert [each == threading.get_ident() for each in threads] == [True, False]


async def test_a_session_that_changed_is_saved_in_a_thread(hops, monkeypatch):
    threads = []
    save = SessionStore.save

    def noting(self, *arguments, **named):
        threads.append(threading.get_ident())
        return save(self, *arguments, **named)

    def change(request):
        request.session["seen"] = True
        return HttpResponse()

    monkeypatch.setattr(SessionStore, "save", noting)
    response = await answered(change)
    assert response.cookies[settings.SESSION_COOKIE_NAME].value
    assert hops == ["SessionMiddleware.process_response"]
    assert threads != [threading.get_ident()]


async def test_messages_are_kept_in_a_thread_and_only_where_there_are_some(hops):
    def say(request):
        messages.info(request, "done")
        return HttpResponse()

    response = await answered(say)
    assert response.cookies["messages"].value
    assert hops == ["MessageMiddleware.process_response"]
    hops.clear()
    await answered(lambda request: HttpResponse())
    assert hops == []
