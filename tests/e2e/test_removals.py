"""Removals in the browser and by command: afterwards nobody can use the account, and its user ID is free."""

from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from tests.client import SERVICES, produce, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_account import become_admin, log_in_at
from tests.e2e.test_api import requested, row
from tests.e2e.test_page import GREEN, keep_picture
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]


def holders(stack: Stack, person: Person) -> set[str]:
    return {service for service in SERVICES if row(person) in stack.rows(service)}


def test_an_owner_closes_the_account_after_a_grace_period(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    log_in_at(page, person)
    page.get_by_role("link", name="Close your account").click()
    page.locator("[name=password]").fill(person.password)
    page.get_by_role("button", name="Close your account").click()
    expect(page.get_by_text("Your account will be closed on")).to_be_visible()
    keep_picture(page, "account-closing.png")
    page.get_by_role("button", name="Keep my account").click()
    expect(page.get_by_text("Your account stays open.")).to_be_visible()
    assert holders(stack, person) == set(SERVICES)


def test_an_administrator_removes_a_user_and_sees_the_lights(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    become_admin(page, stack)
    page.goto(f"/admin/authsvc/user/?q={person.user_id}")
    page.get_by_role("link", name=person.user_id).click()
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Yes, I’m sure").click()
    page.get_by_role("link", name="The lights show which services have deleted their copies.").click()
    eventually(lambda: holders(stack, person) == set())
    page.reload()
    expect(page.locator(".light-success").first).to_be_visible()
    keep_picture(page, "removal-admin.png")


def test_a_new_person_gets_green_lights_with_the_user_id_of_a_removed_account(stack: Stack, person: Person):
    new = replace(person, user_name="Somebody new")
    sign_up(stack, person.form)
    stack.roles["chat"].stop()
    try:
        stack.manage("forget", person.user_id, "--yes")
        eventually(lambda: holders(stack, person) == {"chat"})
    finally:
        # Chat still has the removed account's row, and gets both messages together when it is back.
        stack.roles["chat"].start()
    assert sign_up(stack, new.form)[-1].statuses == GREEN
    assert holders(stack, person) == set()
    assert holders(stack, new) == set(SERVICES)


def test_nothing_brings_a_removed_account_back(stack: Stack, person: Person):
    sign_up(stack, person.form)
    [[owner]] = stack.query("auth", f"SELECT owner_signup_id FROM authsvc_user WHERE email = '{person.email}'")
    stack.manage("forget", person.user_id, "--yes")
    eventually(lambda: holders(stack, person) == set())
    late = requested(person, signupId=str(owner), ownerSignupId=str(owner))
    produce(stack, "user.newUser.req", late, key=person.user_id)
    stack.manage("replay_signups", "--all")
    stack.manage("reconcile", "--heal", check=False)
    # The services read their topics in order: once they have this later sign-up, they have passed over all of that.
    assert sign_up(stack, new_person().form)[-1].statuses == GREEN
    assert holders(stack, person) == set()


def test_the_owner_reads_the_data_that_every_service_holds(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    log_in_at(page, person)
    page.get_by_role("link", name="Your data").click()
    page.locator("[name=password]").fill(person.password)
    page.get_by_role("button", name="Show my data").click()
    for service in map(str.capitalize, SERVICES):
        expect(page.get_by_role("heading", name=service)).to_be_visible()
    assert page.content().count(person.email) >= len(SERVICES)
    keep_picture(page, "your-data.png")
