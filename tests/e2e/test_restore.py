"""A service's database is restored from a backup with the commands of docs/operations.md, after people have signed up,
changed and closed their accounts. Afterwards all services agree."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from signup_sync.participants import PARTICIPANTS
from tests.chaos.test_upgrade import SIGN_UP
from tests.client import sign_up
from tests.conftest import Person, new_person
from tests.e2e.on_call import ArchivingServer, Archivist, OnCall, about
from tests.e2e.test_api import ALL_GREEN
from tests.operations_guide import commands_after
from tests.servers import KafkaServer, PostgresqlServer
from tests.stack import TABLES, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "postgresql", "kafka", "caddy")

# The values that every service stores of an account, by the names of auth's columns and the participants'.
COLUMNS = "owner_signup_id, user_id, email, user_name, role, version"
# One process for all, because each takes seconds to start.
CHANGE_AND_REMOVE = """
from authsvc.models import User
from authsvc.signups import publisher
from authsvc.signups.changes import change_account, remove_account
for email in ({first!r}, {last!r}):
    user = User.objects.get(user_id={changed!r})
    user.user_name, user.email = "Changed", email
    change_account(user)
for user in User.objects.filter(user_id__in={removed!r}):
    remove_account(user)
publisher.close()
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[ArchivingServer]:
    with ArchivingServer() as server:
        yield server


@pytest.fixture(scope="module")
def stack(postgresql: PostgresqlServer, kafka: KafkaServer) -> Iterator[Stack]:
    with Stack.real(postgresql=postgresql, kafka=kafka, auths=1) as running:
        yield running


def people_of(stack: Stack, service: str) -> set[tuple[Any, ...]]:
    living, active = ("TRUE", "is_active") if service == "auth" else ("removed_at IS NULL", "is_account_active")
    return set(stack.query(service, f"SELECT {COLUMNS}, {active} FROM {TABLES[service]} WHERE {living}"))


def all_agree(stack: Stack) -> bool:
    everybody = people_of(stack, "auth")
    return all(people_of(stack, service) == everybody for service in stack.participants)


def names_in(stack: Stack, service: str) -> set[str]:
    return {user_id for _, user_id, *_ in people_of(stack, service)}


def back_up_as_release_0_1_0(on_call: OnCall) -> None:
    """Back up the records of auth that there are, as release 0.1.0 would have stored them: in its older tables, which
    the run-time role owned."""
    stack, role = on_call.stack, on_call.database_of("auth")
    older = f"{role}_0_1_0"
    with psycopg.connect(on_call.postgresql.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {older} OWNER {role}")
    url = stack.env["AUTH_DATABASE_URL"].removesuffix(role) + older
    stack.manage("migrate", "authsvc", "0002", "--verbosity", "0", AUTH_DATABASE_URL=url)
    copied = (
        "user_id, email, owner_signup_id, user_id_key, user_name, role, password, is_superuser, is_active, is_staff, "
        "date_joined"
    )
    users = stack.query("auth", f"SELECT {copied} FROM authsvc_user")
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        values = ", ".join(["%s"] * len(users[0]))
        cursor.executemany(f"INSERT INTO authsvc_user ({copied}) VALUES ({values})", users)
        for user_id, email, signup_id, *_ in users:
            for statement in SIGN_UP[1:]:
                cursor.execute(statement, {"id": signup_id, "name": user_id, "email": email})
    for line in about(commands_after("## Back up"), "auth"):
        on_call.types(line, database=older)


class Town:
    """People who have an account at the time of the backup, and what happens to them afterwards."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.stays, self.changes, self.leaves = (new_person() for _ in range(3))
        for person in (self.stays, self.changes, self.leaves):
            self.joins(person)
        self.comes = new_person()
        # A person who signs up and closes the account between the backup and the restore.
        self.visits = new_person()

    def joins(self, person: Person) -> None:
        assert sign_up(self.stack, person.form)[-1].statuses == ALL_GREEN

    def lives_on(self) -> None:
        self.joins(self.comes)
        self.joins(self.visits)
        code = CHANGE_AND_REMOVE.format(
            changed=self.changes.user_id,
            first=f"first-{self.changes.email}",
            last=f"last-{self.changes.email}",
            removed=[self.leaves.user_id, self.visits.user_id],
        )
        self.stack.manage("shell", "--no-imports", "--command", code)
        eventually(lambda: all_agree(self.stack), what="the services agree before the restore")


def reconcile(stack: Stack, *arguments: str) -> tuple[int, str, list[tuple[str, str, str]]]:
    done = stack.manage("reconcile", "--json", *arguments, check=False)
    *findings, _ = map(json.loads, done.stdout.splitlines())
    return done.returncode, done.stderr, [(each["service"], each["kind"], each["userId"]) for each in findings]


def in_each_participant(**found: Person) -> set[tuple[str, str, str]]:
    """The findings if every participant has one of each kind, about this person."""
    return {(service, kind, person.user_id) for service in PARTICIPANTS for kind, person in found.items()}


def test_auth_restored_from_a_backup_of_an_earlier_release_neither_revives_nor_loses_anybody(
    stack: Stack, postgresql: PostgresqlServer
):
    on_call, town = OnCall(stack, postgresql), Town(stack)
    back_up_as_release_0_1_0(on_call)
    town.lives_on()
    for line in commands_after("1. Stop everything"):
        on_call.types(line)
    assert town.leaves.user_id in names_in(stack, "auth")

    code, problems, findings = reconcile(stack)
    assert code == 1
    assert set(findings) == in_each_participant(superfluous=town.comes, newer=town.changes, revived=town.leaves)
    assert "Participants are ahead of auth" in problems

    reconcile(stack, "--heal", "--auth-restored")
    eventually(lambda: town.leaves.user_id not in names_in(stack, "auth") | names_in(stack, "chat"))
    make_folder, list_the_lost, _, _, remove_folder = commands_after("4. Import the people")
    on_call.types(make_folder)
    on_call.types(list_the_lost)
    done = stack.manage("import_users", str(stack.directory / "lost" / "lost.csv"), check=False)
    on_call.types(remove_folder)
    assert (done.returncode, "1 imported" in done.stdout) == (1, True), done.stdout + done.stderr
    assert reconcile(stack, "--heal")[0] == 0
    eventually(lambda: all_agree(stack), what="the services agree after the restore")
    assert names_in(stack, "auth") >= {person.user_id for person in (town.stays, town.changes, town.comes)}
    open_again, _ = commands_after("5. Open again")
    on_call.types(open_again)
    eventually(lambda: reconcile(stack) == (0, "", []))
    assert sign_up(stack, new_person().form)[-1].statuses == ALL_GREEN


@pytest.fixture
def archivist(stack: Stack, postgresql: ArchivingServer) -> Iterator[Archivist]:
    archivist = Archivist(stack, postgresql)
    yield archivist
    archivist.end()


def test_services_restored_to_an_earlier_moment_are_healed(
    stack: Stack, archivist: Archivist, postgresql: ArchivingServer
):
    """Between the base backup and that moment people have signed up, whom only the archived WAL has."""
    back_up_everything, _, prune = commands_after("Every night")
    archivist.types(back_up_everything)
    check_pruning(archivist, prune, postgresql.backup / "wal")
    town = Town(stack)
    then = people_of(stack, "auth")
    [[moment]] = stack.query("auth", "SELECT clock_timestamp()")
    town.lives_on()

    *recover, dump, stop, remove = commands_after("### Restore to a moment")
    for line in recover:
        archivist.types(line, moment=moment)
    for service in ("auth", *PARTICIPANTS):
        for line in about([dump], service):
            archivist.types(line)
    for line in (stop, remove):
        archivist.types(line)
    assert people_in_dump_of_auth(archivist) == then
    for service in PARTICIPANTS:
        *restore, heal = about(commands_after("## Restore a participant"), service)
        for line in restore:
            archivist.types(line)
        assert people_of(stack, service) == then
        assert heal.endswith(f"reconcile --heal --service {service}")

    code, _, findings = reconcile(stack, "--heal")
    assert code == 0
    assert set(findings) == in_each_participant(missing=town.comes, different=town.changes, removed=town.leaves)
    assert all_agree(stack)
    assert names_in(stack, "chat") >= {person.user_id for person in (town.stays, town.changes, town.comes)}


def test_a_failing_archive_is_reported_until_it_works_again(archivist: Archivist, postgresql: ArchivingServer):
    [watch] = commands_after("While archiving fails")
    archive = postgresql.backup / "wal"
    write_wal(postgresql)
    eventually(lambda: archivist.types(watch) == "", what="archiving works")

    archive.rename(postgresql.backup / "away")
    write_wal(postgresql)
    eventually(lambda: re.fullmatch(r"[^|]+\|[^|]+\|[0-9A-F]{24}\n", archivist.types(watch)), what="it is reported")

    (postgresql.backup / "away").rename(archive)
    write_wal(postgresql)
    eventually(lambda: archivist.types(watch) == "", what="archiving works again")


def write_wal(postgresql: PostgresqlServer) -> None:
    """Finish a file of the WAL. PostgreSQL archives it, and tries again those that it could not archive."""
    with psycopg.connect(postgresql.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_create_restore_point('here')")
        connection.execute("SELECT pg_switch_wal()")


def check_pruning(archivist: Archivist, prune: str, archive: Path) -> None:
    """Check that only the WAL since the base backup is kept."""
    [base] = archive.parent.glob("base-*")
    [first] = re.findall(r"^START WAL .*file (\w+)", (base / "backup_label").read_text(), re.MULTILINE)

    def segments() -> set[str]:
        return {each.name for each in archive.iterdir() if re.fullmatch(r"[0-9A-F]{24}", each.name)}

    eventually(lambda: {first} <= segments() and min(segments()) < first, what="the backup's WAL has been archived")
    archivist.types(prune)
    assert min(segments()) == first


def people_in_dump_of_auth(on_call: OnCall) -> set[tuple[Any, ...]]:
    """Restore it beside auth's database."""
    scratch = on_call.database_of("auth") + "_then"
    on_call.types(f"docker compose exec -T postgres createdb -U postgres {scratch}")
    restore = "docker compose exec -T postgres pg_restore -U postgres --single-transaction --dbname auth < auth.dump"
    on_call.types(restore, database=scratch)
    with psycopg.connect(on_call.postgresql.url(scratch)) as connection:
        return {*connection.execute(f"SELECT {COLUMNS}, is_active FROM {TABLES['auth']}")}
