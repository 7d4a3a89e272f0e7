"""A service's database is restored from a backup with the commands of docs/operations.md, after people have signed up,
changed and closed their accounts. Afterwards all services agree."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from signup_sync.participants import PARTICIPANTS
from tests.client import sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN
from tests.servers import KafkaServer, PostgresqlServer
from tests.servers.process import ROOT
from tests.stack import TABLES, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "postgresql", "kafka", "caddy")

GUIDE = (ROOT / "docs" / "operations.md").read_text()
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


def guide_command(program: str, stack: Stack, service: str, postgresql: PostgresqlServer) -> str:
    """The guide's command line, without compose around it, for this test's database of the service."""
    [words] = re.findall(rf"^ *docker compose exec -T postgres {program} -U postgres (.*chat.*)$", GUIDE, re.MULTILINE)
    database = stack.env[f"{service.upper()}_DATABASE_URL"].rsplit("/", 1)[-1]
    words = words.replace("chat.dump", f"{stack.directory / service}.dump")
    words = words.replace("lost.csv", str(stack.directory / "lost.csv"))
    words = re.sub(r"(?<![\w/])chat\b", database, words)
    return f"{postgresql.binary(program)} {words}"


def run(line: str, postgresql: PostgresqlServer) -> None:
    environment = os.environ | postgresql.superuser_env()
    done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def back_up(stack: Stack, service: str, postgresql: PostgresqlServer) -> None:
    run(guide_command("pg_dump", stack, service, postgresql), postgresql)


def restore(stack: Stack, service: str, postgresql: PostgresqlServer, *, stopped: tuple[str, ...]) -> None:
    for name in stopped:
        stack.roles[name].stop()
    run(guide_command("pg_restore", stack, service, postgresql), postgresql)


def start(stack: Stack, *names: str) -> None:
    for name in names:
        stack.roles[name].launch()
    for name in names:
        stack.roles[name].wait_until_ready()


class Town:
    """People who have an account at the time of the backup, and what happens to them afterwards."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.stays, self.changes, self.leaves = (new_person() for _ in range(3))
        for person in (self.stays, self.changes, self.leaves):
            self.joins(person)
        self.comes = new_person()
        # Somebody who comes and goes between the backup and the restore.
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


def test_participants_restored_from_a_backup_are_healed(stack: Stack, postgresql: PostgresqlServer):
    town = Town(stack)
    for service in PARTICIPANTS:
        back_up(stack, service, postgresql)
    town.lives_on()
    for service in PARTICIPANTS:
        restore(stack, service, postgresql, stopped=(service,))
        assert town.leaves.user_id in names_in(stack, service)
    start(stack, *PARTICIPANTS)
    code, _, findings = reconcile(stack, "--heal")
    assert code == 0
    assert set(findings) == {
        (service, kind, user_id)
        for service in PARTICIPANTS
        for kind, user_id in (
            ("missing", town.comes.user_id), ("different", town.changes.user_id), ("removed", town.leaves.user_id),
        )
    }  # fmt: skip
    assert all_agree(stack)
    assert names_in(stack, "chat") >= {person.user_id for person in (town.stays, town.changes, town.comes)}


def test_auth_restored_from_a_backup_neither_revives_nor_loses_anybody(stack: Stack, postgresql: PostgresqlServer):
    town = Town(stack)
    back_up(stack, "auth", postgresql)
    town.lives_on()
    roles_of_auth = ("web", "auth-1", "relay", "dead-letters", "auth-results")
    restore(stack, "auth", postgresql, stopped=roles_of_auth)
    assert town.leaves.user_id in names_in(stack, "auth")
    start(stack, "auth-results", "relay")

    code, problems, findings = reconcile(stack)
    assert code == 1
    assert set(findings) == {
        (service, kind, user_id)
        for service in PARTICIPANTS
        for kind, user_id in (
            ("superfluous", town.comes.user_id), ("newer", town.changes.user_id), ("revived", town.leaves.user_id),
        )
    }  # fmt: skip
    assert "Participants know more than auth" in problems

    reconcile(stack, "--heal", "--auth-restored")
    eventually(lambda: town.leaves.user_id not in names_in(stack, "auth") | names_in(stack, "chat"))
    lost = stack.directory / "lost.csv"
    run(guide_command("psql", stack, "chat", postgresql), postgresql)
    done = stack.manage("import_users", str(lost), check=False)
    assert (done.returncode, "1 imported" in done.stdout) == (1, True), done.stdout + done.stderr
    assert reconcile(stack, "--heal")[0] == 0
    eventually(lambda: all_agree(stack), what="the services agree after the restore")
    assert names_in(stack, "auth") >= {person.user_id for person in (town.stays, town.changes, town.comes)}
    start(stack, "web", "auth-1", "dead-letters")
    eventually(lambda: reconcile(stack) == (0, "", []))
    assert sign_up(stack, new_person().form)[-1].statuses == ALL_GREEN
