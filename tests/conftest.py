"""Fixtures for tests of all levels: people, the servers of this run, the application on them, and a browser."""

import re
import secrets
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import hypothesis
import pytest
from django.conf import settings
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper as PostgresqlWrapper
from django.utils import translation
from playwright.sync_api import Browser, Page, expect, sync_playwright
from psycopg_pool import ConnectionPool
from pytest_django import DjangoDbBlocker

from tests.plugin import Backing, backing_key
from tests.servers import KafkaServer, PostgresqlServer, chromium
from tests.stack import Stack
from tests.waiting import PATIENCE, eventually

# No deadlines, because the machine may be busy; derandomized, so that every run uses the same examples.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=True
)
hypothesis.settings.load_profile("shared machine")
# Playwright's default is 5 s for assertions, and 30 s for everything else.
expect.set_options(timeout=PATIENCE * 1000)

# The URLs register the admin's pages, over which some tests are parametrized.
import_module(settings.ROOT_URLCONF)

# Screenshots of the browser tests, for review.
ARTIFACTS = Path(__file__).parent / "artifacts"


@dataclass(frozen=True)
class Person:
    """A person whom no service knows yet."""

    user_id: str
    email: str
    user_name: str
    password: str

    @property
    def form(self) -> dict[str, str]:
        """The body for `POST /user`."""
        return {"userId": self.user_id, "userPw": self.password, "email": self.email, "userName": self.user_name}


def new_person() -> Person:
    unique = secrets.token_hex(6)
    # No letter of a user ID or address: of many random passwords, some would be refused as too similar to one.
    password = "".join(secrets.choice("GHJKQTVWYZ") for _ in range(20))
    return Person(f"user-{unique}", f"{unique}@example.org", f"Name {unique}", password)


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Reset the language: Django's test client leaves that of its last request active in its thread."""
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
    """End remaining sessions before the test databases are dropped: a thread of an executor, or one left by a test,
    keeps its connection until it is garbage-collected."""
    yield
    with django_db_blocker.unblock():
        for connection in connections.all():
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )


@pytest.fixture(autouse=True)
def connections_are_returned() -> Iterator[None]:
    """Fail a test whose threads end without returning their connection: later tests would find the pool empty.

    Call the ORM on other threads through `database_sync_to_async`, or end with `connections.close_all()`. Two
    connections may remain in use: the main thread's, and that of asgiref's one thread."""
    yield
    for alias, pool in PostgresqlWrapper._connection_pools.items():
        eventually(lambda pool=pool: in_use(pool) <= 2, what=f"the connections of {alias!r} are returned")


def in_use(pool: ConnectionPool) -> int:
    """The number of connections of the pool that are in use or being opened."""
    figures = pool.get_stats()
    return figures["pool_size"] - figures["pool_available"]


@pytest.fixture
def person() -> Person:
    return new_person()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extend timeouts: the product uses short ones for its inspection of Kafka, and asks again. A test asks only once,
    perhaps right after Kafka's start, on a busy machine."""
    for limit in (
        "lag.ANSWERS_WITHIN",
        "groups.ANSWERS_WITHIN",
        "inspector.ANSWERS_WITHIN",
        "inspector.SECONDS_MOST",
    ):
        monkeypatch.setattr(f"eventbus.inspection.{limit}", PATIENCE)


@pytest.fixture(scope="session", autouse=True)
def patient_clients() -> Iterator[None]:
    """Wait long for Redis: the product does without it after half a second or a second, and asks again later. A test
    asks only once, on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            "authsvc.rate_limits",
            "authsvc.signups.traffic_counts",
            "runtime.processes.instances",
        ):
            patch.setattr(f"{module}.ANSWERS_WITHIN", PATIENCE)
        yield


@pytest.fixture(scope="session")
def backing(request: pytest.FixtureRequest) -> Backing:
    return request.config.stash[backing_key]


@pytest.fixture(scope="session")
def postgresql(backing: Backing) -> PostgresqlServer:
    """The PostgreSQL of the whole run. A test that stops PostgreSQL must start a separate one."""
    assert backing.postgresql
    return backing.postgresql


@pytest.fixture(scope="session")
def kafka(backing: Backing) -> KafkaServer:
    """The Kafka of the whole run. A test that stops Kafka must start a separate one."""
    assert backing.kafka
    return backing.kafka


@pytest.fixture(scope="session")
def stack(backing: Backing) -> Iterator[Stack]:
    """The application of the whole run, on this run's stack. A test must leave all roles running."""
    with new_stack(backing) as running:
        yield running


@pytest.fixture
def fresh_stack(backing: Backing) -> Iterator[Stack]:
    """A separate application for one test, which may do anything to it."""
    with new_stack(backing) as running:
        yield running


def new_stack(backing: Backing, **settings: str) -> AbstractContextManager[Stack]:
    """Return an application on this run's stack; `settings` are added to the environment of every role."""
    if backing.stack == "embedded":
        return Stack.embedded(**settings)
    assert backing.postgresql
    assert backing.kafka
    return Stack.real(postgresql=backing.postgresql, kafka=backing.kafka, **settings)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. While it is open, Playwright's event loop runs in this thread, so no async test can. Therefore it isn't
    open for the whole session, and modules with browser tests must not contain async tests."""
    with sync_playwright() as playwright:
        running = chromium.launch(playwright)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, stack: Stack, backing: Backing, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty tab for the application. At the end, a screenshot is saved, and any script error fails the test."""
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
    """Send the mails of a test before it ends, because a later test has other settings and another database."""
    yield
    # Imported here, because the settings must be read first.
    from authsvc.mail import mail_worker

    if mail_worker.cache_info().currsize:
        mail_worker().drain(PATIENCE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of each process's log to the report of a failed test of the application."""
    report = yield
    if report.failed:
        for fixture in ("stack", "fresh_stack"):
            if isinstance(running := getattr(item, "funcargs", {}).get(fixture), Stack):
                report.sections += [(f"the end of {name}'s log", log[-4000:]) for name, log in running.logs().items()]
    return report
