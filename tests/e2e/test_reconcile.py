"""`manage.py reconcile` on the whole installation: participants lose, change and gain rows, and it reports and heals
them."""

import json
from typing import Any

import pytest

from signup_sync.participants import PARTICIPANTS
from tests.client import sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN, row
from tests.stack import TABLES, Stack, UserRow

pytestmark = pytest.mark.needs("application")


def reconcile(stack: Stack, *arguments: str, code: int) -> dict[str, Any]:
    # As on the machine of auth's operator, without the addresses of other services' databases.
    nowhere = {} if "AUTH_DATABASE_URL" not in stack.env else {
        f"{service.upper()}_DATABASE_URL": "postgres://nobody@127.0.0.1:1/none" for service in PARTICIPANTS
    }  # fmt: skip
    done = stack.manage("reconcile", "--json", "--timeout", "30", *arguments, check=False, **nowhere)
    assert done.returncode == code, done.stderr
    *findings, last = map(json.loads, done.stdout.splitlines())
    services: dict[str, Any] = last["services"]
    for name, report in services.items():
        report["findings"] = [finding for finding in findings if finding["service"] == name]
    return services


def found(report: dict[str, Any]) -> set[tuple[str, str, bool]]:
    return {(each["kind"], each["userId"], each.get("healed", False)) for each in report["findings"]}


def change(stack: Stack, service: str, sql: str, person: Person) -> None:
    assert row(person) in stack.rows(service)
    stack.query(service, sql.format(table=TABLES[service], email=person.email))
    assert row(person) not in stack.rows(service)


def add_by_hand(stack: Stack, service: str, user_id: str, email: str) -> UserRow:
    """The row that a service's admin saves for a user whom an administrator adds."""
    stack.query(
        service,
        f"INSERT INTO {TABLES[service]} (user_id, user_id_key, email, user_name, role, is_active, created_at) "
        f"VALUES ('{user_id}', '{user_id}', '{email}', 'By hand', 'ROLE_USER', TRUE, '2026-01-01 00:00:00+00')",
    )
    return UserRow(user_id, email, "By hand", "ROLE_USER")


def test_lost_and_changed_rows_are_healed_and_added_rows_are_reported(fresh_stack: Stack):
    stack = fresh_stack
    kim, lee, park = (new_person() for _ in range(3))
    for person in (kim, lee, park):
        assert sign_up(stack, person.form)[-1].statuses == ALL_GREEN
    everybody = {row(person) for person in (kim, lee, park)}
    reports = reconcile(stack, code=0)
    assert (reports.keys(), [found(each) for each in reports.values() if found(each)]) == ({*PARTICIPANTS}, [])

    change(stack, "chat", "DELETE FROM {table} WHERE email = '{email}'", kim)
    change(stack, "chat", "UPDATE {table} SET user_name = 'Other', is_active = FALSE WHERE email = '{email}'", lee)
    change(stack, "customer", "DELETE FROM {table} WHERE email = '{email}'", park)
    by_hand = add_by_hand(stack, "chat", "by-hand", "by-hand@example.org")
    in_the_way = add_by_hand(stack, "customer", "in-the-way", park.email)

    report = reconcile(stack, code=1)
    assert found(report["chat"]) == {
        ("missing", kim.user_id, False), ("different", lee.user_id, False), ("superfluous", "by-hand", False),
    }  # fmt: skip
    assert found(report["customer"]) == {("conflicting", park.user_id, False)}
    assert stack.rows("chat") != everybody | {by_hand}

    report = reconcile(stack, "--heal", code=1)
    assert found(report["chat"]) == {
        ("missing", kim.user_id, True), ("different", lee.user_id, True), ("superfluous", "by-hand", False),
    }  # fmt: skip
    assert stack.rows("chat") == everybody | {by_hand}
    assert stack.rows("customer") == everybody - {row(park)} | {in_the_way}
    [[is_active]] = stack.query("chat", f"SELECT is_active FROM chatsvc_chatuser WHERE email = '{lee.email}'")
    assert not is_active

    report = reconcile(stack, "--heal", code=1)
    assert found(report["chat"]) == {("superfluous", "by-hand", False)}
    assert found(report["customer"]) == {("conflicting", park.user_id, False)}

    stack.query("chat", "DELETE FROM chatsvc_chatuser WHERE user_id = 'by-hand'")
    stack.query("customer", "DELETE FROM customersvc_customer WHERE user_id = 'in-the-way'")
    assert found(reconcile(stack, "--heal", code=0)["customer"]) == {("missing", park.user_id, True)}
    assert stack.rows("chat") == stack.rows("customer") == everybody

    stack.roles["chat"].stop()
    silent = stack.manage("reconcile", "--timeout", "2", check=False)
    assert silent.returncode == 1
    assert "chat did not answer within 2 s" in silent.stderr
    assert "customer did not" not in silent.stderr
    stack.roles["chat"].start()
    assert reconcile(stack, code=0)["chat"]["answered"]


def test_a_page_that_arrives_after_the_run_has_ended_heals_nothing(fresh_stack: Stack):
    kim = new_person()
    sign_up(fresh_stack, kim.form)
    chat = fresh_stack.roles["chat"]
    chat.stop()
    change(fresh_stack, "chat", "DELETE FROM {table} WHERE email = '{email}'", kim)
    fresh_stack.manage("reconcile", "--heal", "--timeout", "1", check=False)
    chat.start()
    # Its partition's later pages are answered, so the late one was passed over.
    assert found(reconcile(fresh_stack, code=1)["chat"]) == {("missing", kim.user_id, False)}
