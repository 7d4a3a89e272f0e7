"""What tests of every level share: people, the servers of this run, the application on them, and a browser."""

import re
import secrets
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper as PostgresqlWrapper
from django.utils import translation
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from tests.plugin import Backing, backing_key
from tests.servers import KafkaServer, PostgresqlServer, chromium
from tests.stack import Stack
from tests.waiting import PATIENCE

# How long an example takes is the machine's affair, which may be busy; and the same run finds the same.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("shared machine")
# Playwright's own is 5 s, and 30 s for what is no assertion.
expect.set_options(timeout=PATIENCE * 1000)

# Screenshots of the browser tests, to be looked at.
ARTIFACTS = Path(__file__).parent / "artifacts"


@dataclass(frozen=True)
class Person:
    """Somebody whom no service knows yet."""

    user_id: str
    email: str
    user_name: str
    password: str

    @property
    def form(self) -> dict[str, str]:
        """What `POST /user` takes."""
        return {"userId": self.user_id, "userPw": self.password, "email": self.email, "userName": self.user_name}


def new_person() -> Person:
    unique = secrets.token_hex(6)
    return Person(f"user-{unique}", f"{unique}@example.org", f"Name {unique}", secrets.token_urlsafe(12))


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Django's test client leaves the language of its last request to whatever comes next in its thread."""
    yield
    translation.deactivate()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """Close the pools that tests without a database have opened: a thread of the product may ask for a connection, and
    Django blocks the query only after it has made the pool. That pool would lead all later tests to the application's
    database instead of the test database, until something closes it."""
    for connection in connections.all():
        if isinstance(connection, PostgresqlWrapper):
            connection.close_pool()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Ends what is left of sessions before the test databases go: an executor's thread, or one that a test leaves with
    its connection, keeps that until it is collected."""
    yield
    with django_db_blocker.unblock():
        for connection in connections.all():
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )


@pytest.fixture
def person() -> Person:
    return new_person()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product gives up soon what it asks of Kafka beside its work, and asks again. A test asks once, perhaps as the
    first after Kafka's start, on a machine that is busy."""
    for limit in (
        "lag.ANSWERS_WITHIN",
        "groups.ANSWERS_WITHIN",
        "inspector.ANSWERS_WITHIN",
        "inspector.SECONDS_MOST",
    ):
        monkeypatch.setattr(f"eventbus.inspection.{limit}", PATIENCE)


@pytest.fixture(scope="session")
def backing(request: pytest.FixtureRequest) -> Backing:
    return request.config.stash[backing_key]


@pytest.fixture(scope="session")
def postgresql(backing: Backing) -> PostgresqlServer:
    """The one of the whole run: a test that takes it away starts one of its own for that."""
    assert backing.postgresql
    return backing.postgresql


@pytest.fixture(scope="session")
def kafka(backing: Backing) -> KafkaServer:
    """The one of the whole run: a test that takes it away starts one of its own for that."""
    assert backing.kafka
    return backing.kafka


@pytest.fixture(scope="session")
def stack(backing: Backing) -> Iterator[Stack]:
    """The application of the whole run, on this run's stack. A test leaves it as it was: all roles running."""
    with new_stack(backing) as running:
        yield running


@pytest.fixture
def fresh_stack(backing: Backing) -> Iterator[Stack]:
    """An application of the test's own, to do to it what it wants."""
    with new_stack(backing) as running:
        yield running


def new_stack(backing: Backing, **settings: str) -> AbstractContextManager[Stack]:
    """An application on this run's stack; `settings` are more of the environment of every role."""
    if backing.stack == "embedded":
        return Stack.embedded(**settings)
    assert backing.postgresql
    assert backing.kafka
    return Stack.real(postgresql=backing.postgresql, kafka=backing.kafka, **settings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. While it is open, Playwright's event loop runs in this thread and no async test can: hence not for the
    whole session, and keep async tests out of modules with browser tests."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium.executable(), args=chromium.FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, stack: Stack, backing: Backing, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty tab at the application; in the end its picture is kept, and an error in its scripts fails the test."""
    context = browser.new_context(base_url=stack.base_url, locale="en-US")
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    ARTIFACTS.mkdir(exist_ok=True)
    name = re.sub(r"[^\w-]+", "_", f"{backing.stack}-{request.node.name}")
    tab.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
    context.close()
    assert errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Mails that a test caused leave in its time: a later test has other settings, and another database."""
    yield
    # Not above: the settings are read first.
    from authsvc.mail import mail_worker

    if mail_worker.cache_info().currsize:
        mail_worker().drain(PATIENCE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test of the application shows what each of its processes wrote last."""
    report = yield
    if report.failed:
        for fixture in ("stack", "fresh_stack"):
            if isinstance(running := getattr(item, "funcargs", {}).get(fixture), Stack):
                report.sections += [(f"the end of {name}'s log", log[-4000:]) for name, log in running.logs().items()]
    return report
