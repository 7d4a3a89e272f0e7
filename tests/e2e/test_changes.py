"""Changes of an account in the browser, by its owner and by an administrator: from the form to every copy."""

import re

import pytest
from playwright.sync_api import Page, expect

from signup_sync.participants import PARTICIPANTS
from tests.client import SERVICES, produce, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_account import become_admin, log_in_at
from tests.e2e.test_api import requested, row
from tests.e2e.test_page import GREEN, keep_picture, lights, wait_for_lights
from tests.stack import TABLES, Stack, UserRow
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]


def change(page: Page, person: Person, **fields: str) -> None:
    """Submit the account page's form with these values."""
    for name, value in fields.items():
        page.locator(f"#account-form [name={name}]").fill(value)
    page.locator("#account-form [name=password]").fill(person.password)
    page.locator("#account-form [type=submit]").click()


def copies(stack: Stack, *rows: UserRow) -> bool:
    """Whether every service has exactly these rows."""
    return all(set(rows) <= stack.rows(service) for service in SERVICES)


def test_an_owner_changes_name_and_address_and_sees_every_light_turn(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    log_in_at(page, person)
    change(page, person, user_name="New name", email=f"new-{person.email}")
    expect(page.locator("#lights-title")).to_have_text("The changes are saved")
    assert lights(page) == GREEN
    expect(page.locator("[data-service=chat]")).to_contain_text("Updated")
    assert copies(stack, UserRow(person.user_id, f"new-{person.email}", "New name", "ROLE_USER"))
    assert all(row(person) not in stack.rows(service) for service in SERVICES)
    keep_picture(page, "change-saved.png")
    page.get_by_role("link", name="Go to the account").click()
    expect(page.locator("#change-lights [data-status=SUCCESS]")).to_have_count(3)
    keep_picture(page, "account-after-change.png")
    # In a tab that was opened before the next change.
    old = page.context.new_page()
    old.goto("/account/")
    change(page, person, user_name="Newer name")
    expect(page.locator("#lights-title")).to_have_text("The changes are saved")
    page = old
    change(page, person, user_name="From an old tab")
    expect(page.locator("#error-summary")).to_contain_text("It now has the name “Newer name”")
    expect(page.locator("[name=user_name]")).to_have_value("From an old tab")
    keep_picture(page, "account-outdated.png")


def test_a_service_that_has_the_new_address_turns_red_and_keeps_its_row(page: Page, stack: Stack, person: Person):
    other = new_person()
    produce(stack, "user.newUser.req", requested(other, services=["chat"]), key=other.user_id)
    sign_up(stack, person.form)
    eventually(lambda: row(other) in stack.rows("chat"))
    log_in_at(page, person)
    change(page, person, email=other.email)
    expect(page.locator("[data-service=chat][data-status=FAIL]")).to_contain_text("Already had this email address")
    expect(page.locator("[data-service=customer][data-status=SUCCESS]")).to_be_visible()
    wait_for_lights(page, GREEN | {"chat": "FAIL"})
    assert {row(other), row(person)} <= stack.rows("chat")
    assert UserRow(person.user_id, other.email, person.user_name, "ROLE_USER") in stack.rows("customer")
    keep_picture(page, "change-red.png")
    page.goto("/account/")
    expect(page.locator("main")).to_contain_text("Services marked ✕ refused this change; nothing was changed there.")


def may_enter(stack: Stack, person: Person, service: str) -> bool:
    [[local, account]] = stack.query(
        service, f"SELECT is_active, is_account_active FROM {TABLES[service]} WHERE user_id = '{person.user_id}'"
    )
    return bool(local and account)


def test_an_administrator_locks_a_user_out_everywhere(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    assert all(may_enter(stack, person, service) for service in PARTICIPANTS)
    become_admin(page, stack)
    owner = page.context.browser
    assert owner is not None
    owners = owner.new_context(base_url=stack.base_url).new_page()
    log_in_at(owners, person)

    page.goto(f"/admin/authsvc/user/?q={person.user_id}")
    page.locator("#result_list tbody th a").first.click()
    second = page.context.new_page()
    second.goto(page.url)
    page.locator("[name=role]").select_option("ROLE_ADMIN")
    page.locator("[name=is_active]").uncheck()
    page.locator("[name=_save]").click()
    page.get_by_role("link", name="Watch the services answer").click()
    expect(page.locator(".field-status, .lights").first).to_contain_text("chat")
    eventually(lambda: not any(may_enter(stack, person, service) for service in PARTICIPANTS))
    assert copies(stack, UserRow(person.user_id, person.email, person.user_name, "ROLE_ADMIN"))
    keep_picture(page, "admin-change.png")
    owners.reload()
    expect(owners).to_have_url(re.compile("/login/"))

    # The second administrator, who has opened the form before.
    second.locator("[name=user_name]").fill("Typed by the second")
    second.locator("[name=_save]").click()
    expect(second.locator(".errorlist").first).to_contain_text("This user was changed after you opened this page.")
    expect(second.locator("[name=user_name]")).to_have_value("Typed by the second")
    keep_picture(second, "admin-outdated.png")

    page.goto(f"/admin/authsvc/user/?q={person.user_id}")
    page.locator("[name=_selected_action]").first.check()
    page.locator("[name=action]").select_option("activate")
    page.get_by_role("button", name="Run the selected action").or_(page.get_by_role("button", name="Go")).first.click()
    expect(page.locator(".messagelist")).to_contain_text("1 user was activated.")
    eventually(lambda: all(may_enter(stack, person, service) for service in PARTICIPANTS))
    log_in_at(owners, person)
    owners.context.close()
