"""Users who are added by a command or in the admin, on the whole installation: they reach every service."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.client import SERVICES
from tests.conftest import Person, new_person
from tests.e2e.test_api import row
from tests.e2e.test_page import keep_picture
from tests.plugin import Backing
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")


def line(person: Person) -> str:
    return json.dumps({"userId": person.user_id, "userName": person.user_name, "email": person.email}) + "\n"


def reaches_every_service(stack: Stack, *people: Person) -> None:
    for service in SERVICES:
        expected = {row(person) for person in people}
        eventually(
            lambda service=service, expected=expected: expected <= set(stack.rows(service)),
            what=f"{service} has the users",
        )


def lights_are_green(stack: Stack, person: Person) -> None:
    query = f"SELECT pending_count, failed_count FROM authsvc_signup WHERE email = '{person.email}'"
    eventually(lambda: [tuple(found) for found in stack.query("auth", query)] == [(0, 0)], what="all lights are green")


def test_imported_users_reach_every_service_and_their_lights_turn_green(stack: Stack, tmp_path: Path):
    people = [new_person() for _ in range(20)]
    file = tmp_path / "users.jsonl"
    file.write_text("".join(map(line, people)))
    assert stack.manage("import_users", str(file)).stdout.strip() == "20 imported, 0 known already, 0 rejected"
    reaches_every_service(stack, *people)
    for person in people:
        lights_are_green(stack, person)
    assert stack.manage("import_users", str(file)).stdout.strip() == "0 imported, 20 known already, 0 rejected"


def test_an_import_while_kafka_is_down_is_published_by_the_relay(stack: Stack, person: Person, tmp_path: Path):
    file = tmp_path / "users.jsonl"
    file.write_text(line(person))
    done = stack.manage("import_users", str(file), KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert done.stdout.strip() == "1 imported, 0 known already, 0 rejected"
    reaches_every_service(stack, person)
    lights_are_green(stack, person)


def test_an_administrator_made_by_a_command_reaches_every_service(stack: Stack, person: Person):
    named = {"ADMIN_USER_ID": person.user_id, "ADMIN_EMAIL": person.email, "ADMIN_PASSWORD": person.password}
    stack.manage("make_admin", **named)
    # The command asks for no name.
    added = Person(person.user_id, person.email, person.user_id, person.password)
    reaches_every_service(stack, added)
    lights_are_green(stack, added)


@pytest.mark.needs("chromium")
def test_after_adding_a_user_the_administrator_sees_the_lights(
    stack: Stack, browser: Browser, person: Person, backing: Backing
):
    staff = new_person()
    stack.manage(
        "createsuperuser", "--noinput", "--user_id", staff.user_id, "--email", staff.email,
        DJANGO_SUPERUSER_PASSWORD=staff.password,
    )  # fmt: skip
    context = browser.new_context(base_url=stack.base_url, locale="en-US", viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto("/admin/authsvc/user/add/")
    page.get_by_label("user ID").fill(staff.user_id)
    page.get_by_label("Password").fill(staff.password)
    page.get_by_role("button", name="Log in").click()
    filled = {
        "user_id": person.user_id, "email": person.email, "user_name": person.user_name, "password1": person.password,
        "password2": person.password,
    }  # fmt: skip
    for field, text in filled.items():
        page.locator(f"#id_{field}").fill(text)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text(f"The user “{person.user_id}” was added.")
    expect(page.locator("body")).to_contain_text("✓ auth")
    reaches_every_service(stack, person)
    lights_are_green(stack, person)
    page.reload()
    for service in SERVICES:
        expect(page.locator("body")).to_contain_text(f"✓ {service}")
    if backing.stack == "embedded":
        keep_picture(page, "admin-added-user.png")
    context.close()
