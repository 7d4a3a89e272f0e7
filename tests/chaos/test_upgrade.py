"""Upgrading while people sign up: migrations of large tables, and two releases beside each other."""

import json
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.cookiejar import CookieJar
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener
from uuid import uuid4

import psycopg
import pytest

from tests.client import Answer, filled_form, sign_up
from tests.conftest import Person, new_person
from tests.plugin import is_ci
from tests.servers import KafkaServer, PostgresqlServer
from tests.servers.process import LOOPBACK, ROOT
from tests.stack import MANAGE, RoleProcess, Stack
from tests.waiting import eventually, slowness

# Rows in each of auth's two large tables: 2,000,000 take minutes to make.
ROWS = 200_000
# One in this many sign-ups is red, so that a migration changes its row.
RED = 10
# Seconds that a sign-up's statements may take while a migration runs on an idle machine. A migration waits for its lock
# for at most one second.
ANSWERS_WITHIN = 2.0
# The release before these migrations. A clone with full history contains it.
PREVIOUS_RELEASE = "fa1d8ee893f66ec1adc28c0760f5084fa2cfa1c3"
# Its participants. Others may have been added since.
PREVIOUS_PARTICIPANTS = ("chat", "customer")
PREVIOUS_SERVICES = ("auth", *PREVIOUS_PARTICIPANTS)
PREVIOUS_GREEN = dict.fromkeys(PREVIOUS_SERVICES, "SUCCESS")

# The tables as release 0.1.0 had them after migration 0002, and the columns that its code writes.
FILL = [
    """
    INSERT INTO authsvc_user (password, is_superuser, user_id, user_id_key, email, user_name, role, owner_signup_id,
        is_active, is_staff, date_joined)
    SELECT 'x', FALSE, 'u' || n, 'u' || n,
        CASE n % 1000 WHEN 0 THEN 'u' || n || '@b\u00fccher.example' ELSE 'u' || n || '@example.org' END,
        'User', 'ROLE_USER', gen_random_uuid(), TRUE, FALSE, now()
    FROM generate_series(1, %(rows)s) n
    """,
    """
    INSERT INTO authsvc_signup (id, user_id, user_id_key, email, user_name, role, password, owner_signup_id, lights,
        version, pending_count, failed_count, created_at, completed_at, attempts)
    SELECT gen_random_uuid(), 'u' || n, 'u' || n, 'u' || n || '@example.org', 'User', 'ROLE_USER', 'x',
        gen_random_uuid(),
        CASE n % %(red)s WHEN 0 THEN '{"chat": {"status": "FAIL", "reason": "taken"}}' ELSE '{}' END::jsonb,
        1, 0, CASE n % %(red)s WHEN 0 THEN 1 ELSE 0 END, now(), now(), 1
    FROM generate_series(1, %(rows)s) n
    """,
]
SIGN_UP = [
    """
    INSERT INTO authsvc_user (password, is_superuser, user_id, user_id_key, email, user_name, role, owner_signup_id,
        is_active, is_staff, date_joined)
    VALUES ('x', FALSE, %(name)s, %(name)s, %(email)s, 'User', 'ROLE_USER', %(id)s, TRUE, FALSE, now())
    """,
    """
    INSERT INTO authsvc_signup (id, user_id, user_id_key, email, user_name, role, password, owner_signup_id, lights,
        version, pending_count, failed_count, created_at, attempts)
    VALUES (%(id)s, %(name)s, %(name)s, %(email)s, 'User', 'ROLE_USER', 'x', %(id)s, '{}', 1, 2, 0, now(), 1)
    """,
    "UPDATE authsvc_signup SET version = 2, pending_count = 0, completed_at = now() WHERE id = %(id)s",
]


@dataclass
class Clients:
    """Sign-ups by the previous release's statements, one after the other, until `stop` is set."""

    url: str
    longest: float = 0.0
    number: int = 0
    error: Exception | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                while not self.stop.wait(0.02):
                    name = f"new-{self.number}"
                    values = {"id": uuid4(), "name": name, "email": f"{name}@example.org"}
                    begun = time.monotonic()
                    with connection.transaction():
                        for statement in SIGN_UP:
                            connection.execute(statement, values)
                    self.longest = max(self.longest, time.monotonic() - begun)
                    self.number += 1
        except psycopg.Error as error:
            self.error = error


@contextmanager
def signing_up(url: str) -> Iterator[Clients]:
    clients = Clients(url)
    thread = threading.Thread(target=clients.run)
    thread.start()
    try:
        yield clients
    finally:
        clients.stop.set()
        thread.join()


@dataclass
class Databases:
    """Databases of release 0.1.0, with their owner's environment and the address that sign-ups use."""

    env: dict[str, str]
    owner: str
    url: str

    def migrate(self, *command: str, manage: Sequence[str] = MANAGE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*manage, *command], env=self.env, cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def old_databases(
    postgresql: PostgresqlServer, directory: Path, *, rows: int, release: Path | None = None
) -> Databases:
    """Databases with `rows` users and sign-ups, as migration 0002 leaves them or, if given, the previous release."""
    prefix = f"upgrade_{uuid4().hex[:8]}_"
    postgresql.create_services(prefix)
    owner = postgresql.owner_env(prefix)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "DATA_DIR": str(directory / "data"), **owner}
    databases = Databases(env, owner["AUTH_DATABASE_URL"], postgresql.run_time_env(prefix)["AUTH_DATABASE_URL"])
    if release:
        before = databases.migrate("migrate_all", "--verbosity", "0", manage=by_code_of(release, MANAGE))
    else:
        before = databases.migrate("migrate", "authsvc", "0002", "--verbosity", "0")
    _, errors = before.communicate(timeout=60)
    assert before.returncode == 0, errors
    with psycopg.connect(databases.owner, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement.replace("%(rows)s", str(rows)).replace("%(red)s", str(RED)))
    return databases


@pytest.mark.needs("postgresql")
def test_people_sign_up_while_large_tables_are_migrated(postgresql: PostgresqlServer, tmp_path: Path):
    """At first, a forgotten session with an open transaction that has read the sign-ups blocks the migrations."""
    databases = old_databases(postgresql, tmp_path, rows=ROWS)
    with psycopg.connect(databases.url) as forgotten, signing_up(databases.url) as clients:
        forgotten.execute("SELECT 1 FROM authsvc_signup LIMIT 1")
        migration = databases.migrate("migrate_all", "--verbosity", "1")
        assert migration.stderr
        for _ in range(2):
            assert "trying again" in migration.stderr.readline()
        forgotten.rollback()
        _, errors = migration.communicate(timeout=300)
        assert migration.returncode == 0, errors
        during = clients.number
        eventually(lambda: clients.number > during or clients.error, what="sign-ups continue")
        slow = slowness()
    assert clients.error is None
    assert clients.longest < ANSWERS_WITHIN * slow
    with psycopg.connect(databases.owner) as connection:
        invalid = connection.execute("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid").fetchall()
        named = connection.execute("SELECT failures, count(*) FROM authsvc_signup GROUP BY 1").fetchall()
        [[foreign]] = connection.execute("SELECT count(*) FROM authsvc_user WHERE email LIKE '%xn--bcher-kva%'")
    assert invalid == []
    assert sorted(named) == [("", ROWS - ROWS // RED + clients.number), ("chat: taken", ROWS // RED)]
    assert foreign == ROWS // 1000


@pytest.mark.needs("postgresql")
def test_an_interrupted_migration_is_completed_by_the_next(postgresql: PostgresqlServer, tmp_path: Path):
    """A migration that is killed while it builds its first index leaves an invalid index behind."""
    databases = old_databases(postgresql, tmp_path, rows=1_000)
    with psycopg.connect(databases.owner, autocommit=True) as connection:
        # The build waits for this transaction to end.
        with psycopg.connect(databases.url) as other:
            databases.migrate("migrate", "authsvc", "0003", "--verbosity", "0").communicate(timeout=60)
            other.execute("UPDATE authsvc_signup SET version = 2 WHERE user_id = 'u1'")
            migration = databases.migrate("migrate", "authsvc", "0004", "--verbosity", "0")
            invalid = "SELECT 1 FROM pg_index WHERE NOT indisvalid"
            eventually(lambda: connection.execute(invalid).fetchone(), what="an index is being built")
            migration.kill()
            migration.communicate()
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%'"
            )
        again = databases.migrate("migrate_all", "--verbosity", "0")
        assert again.communicate(timeout=300)[1] == ""
        assert again.returncode == 0
        assert connection.execute(invalid).fetchone() is None


@pytest.fixture(scope="module")
def previous_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the previous release, out of this repository's history."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", PREVIOUS_RELEASE], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        reason = (
            f"the previous release, commit {PREVIOUS_RELEASE}, is not here: {archive.stderr.decode().strip()}. In a "
            "shallow clone run `git fetch --unshallow`, and let CI check out the whole history."
        )
        pytest.fail(reason) if is_ci() else pytest.skip(reason)
    directory = tmp_path_factory.mktemp("previous-release")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory


def by_code_of(code: Path, command: Sequence[str]) -> list[str]:
    """The command with the manage.py of this code."""
    return [str(code / "manage.py") if part == MANAGE[1] else part for part in command]


@pytest.mark.needs("postgresql")
def test_an_installation_of_the_previous_release_is_migrated(
    postgresql: PostgresqlServer, previous_release: Path, tmp_path: Path
):
    """Its migration 0003 filled the column and built the index at once, which 0008 and 0009 do now."""
    databases = old_databases(postgresql, tmp_path, rows=1_000, release=previous_release)
    index = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'signup_failures'::regclass"
    with psycopg.connect(databases.owner, autocommit=True) as connection:
        connection.execute(
            "UPDATE authsvc_signup SET failures = 'chat: taken' WHERE failed_count > 0 AND id::text < '8'"
        )
        assert connection.execute(index).fetchall() == [(True,)]
        migration = databases.migrate("migrate_all", "--verbosity", "0")
        assert migration.communicate(timeout=300)[1] == ""
        assert migration.returncode == 0
        named = connection.execute("SELECT failures, count(*) FROM authsvc_signup GROUP BY 1").fetchall()
        assert sorted(named) == [("", 1_000 - 1_000 // RED), ("chat: taken", 1_000 // RED)]
        assert connection.execute(index).fetchall() == [(True,)]


class StackOfPreviousServices(Stack):
    """An installation that both releases can run."""

    participants = PREVIOUS_PARTICIPANTS


def as_previous(stack: Stack, name: str, code: Path) -> RoleProcess:
    """Return the role `name` run by the previous release's code, on the same port."""
    role = stack.roles[name]
    command = by_code_of(code, role.command)
    return RoleProcess(
        f"previous-{name}", command, env=role.env, log=stack.directory / f"previous-{name}.log", port=role.port
    )


# The roles that the previous release runs meanwhile, in the order of docs/upgrading.md; one instance of auth at a time.
STEPS = {
    "migrated": ["web", "auth-1", "auth-2", "auth-results", *PREVIOUS_PARTICIPANTS, "relay"],
    "consumers": ["web", "auth-1", "auth-2"],
    "consumers and web": ["auth-1", "auth-2"],
    "consumers, web and one auth": ["auth-2"],
    # Rollback: the role that was replaced last is rolled back first.
    "all but the consumers": ["auth-results", *PREVIOUS_PARTICIPANTS, "relay"],
}


@pytest.mark.needs("application", "caddy", "postgresql", "kafka")
def test_the_previous_release_runs_beside_this_one(
    postgresql: PostgresqlServer, kafka: KafkaServer, previous_release: Path
):
    """At each step of a rollout sign-ups through the API and the page become green, on both instances of auth."""
    with StackOfPreviousServices.real(postgresql=postgresql, kafka=kafka) as stack, ExitStack() as previous:
        beside = {name: as_previous(stack, name, previous_release) for name in STEPS["migrated"]}
        for role in beside.values():
            previous.callback(role.kill)
        runs_previous: set[str] = set()
        for step, names in STEPS.items():
            switch(stack, beside, runs_previous, to=set(names))
            runs_previous = set(names)
            people = [new_person() for _ in range(4)]
            for person in people[:3]:
                assert sign_up(stack, person.form)[-1].statuses == PREVIOUS_GREEN, step
            by_page(stack, people[3])
            emails = {person.email for person in people}
            for service in PREVIOUS_SERVICES:
                eventually(
                    lambda service=service, emails=emails: emails <= {row.email for row in stack.rows(service)},
                    what=f"{service} has everybody while the previous release runs {names}",
                )
            state_is_read_by_each(stack)
        assert stack.query("auth", "SELECT count(*) FROM eventbus_deadletter") == [(0,)]


def switch(stack: Stack, beside: Mapping[str, RoleProcess], now: set[str], *, to: set[str]) -> None:
    """Stops the old processes and starts the new ones in their place."""
    changed = now ^ to
    for name in changed:
        (beside if name in now else stack.roles)[name].stop()
    started = [(beside if name in to else stack.roles)[name] for name in changed]
    for role in started:
        role.launch()
    for role in started:
        role.wait_until_ready()


def by_page(stack: Stack, person: Person) -> None:
    """A sign-up by the form; its status page is shown."""
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    page = browser.open(f"{stack.base_url}/signup/", timeout=30).read().decode()
    form = urlencode(filled_form(page, person)).encode()
    with browser.open(f"{stack.base_url}/signup/", form, timeout=30) as answer:
        assert "/signup/status/" in answer.url


def api(port: int, method: str, path: str, body: Mapping[str, str] | None = None, **headers: str) -> Answer:
    """One request to this instance of auth."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Content-Type": "application/json"}
    with closing(HTTPConnection(LOOPBACK, port, timeout=30)) as connection:
        connection.request(method, path, body=json.dumps(body) if body else None, headers=sent)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def state_is_read_by_each(stack: Stack) -> None:
    """A ticket that one instance of auth gave opens the sign-up at the other, whichever release each is of."""
    ports = [stack.roles[name].port for name in ("auth-1", "auth-2")]
    for asked, other in (ports, ports[::-1]):
        taken = api(asked, "POST", "/user", new_person().form)
        assert taken.status == 202, taken.body
        location, ticket = taken.headers["Location"], taken.headers["Signup-Ticket"]

        def is_complete(other: int = other, location: str = location, ticket: str = ticket) -> bool:
            return bool(api(other, "GET", location, Signup_Ticket=ticket).json["complete"])

        eventually(is_complete, what="the other instance says that the sign-up is complete")
