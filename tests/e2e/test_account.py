"""The account page in a browser: which services hold the account, a new password, and a forgotten one."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.client import produce, request, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_api import requested, row
from tests.e2e.test_page import GREEN, fill, give_password, lights, log_in, sign_up_in, submit, wait_for_flag
from tests.e2e.test_stalled import admin_of
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]

NEW_PASSWORD = "quite another w0rd"
SCRIPT = "<script>window.isOwned = true</script><img src=x onerror='window.isOwned = true'>"
ADVICE = "#password-advice"


def log_in_at(page: Page, person: Person) -> None:
    page.goto("/login/")
    log_in(page, person)


def become_admin(page: Page, stack: Stack) -> None:
    cookies = (cookie.split("=", 1) for cookie in admin_of(stack).split("; "))
    page.context.add_cookies([{"name": name, "value": value, "url": stack.base_url} for name, value in cookies])


def test_the_account_page_shows_the_owner_the_lights_at_any_later_time(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    log_in_at(page, person)
    assert lights(page) == GREEN
    expect(page.locator("[data-service=chat]")).to_contain_text("Ready")


def test_the_account_page_names_the_service_that_already_had_the_user(page: Page, stack: Stack, person: Person):
    produce(stack, "user.newUser.req", requested(person, services=["chat"]), key=person.user_id)
    eventually(lambda: row(person) in stack.rows("chat"))
    sign_up(stack, person.form)
    log_in_at(page, person)
    assert lights(page) == GREEN | {"chat": "FAIL"}
    expect(page.locator("[data-service=chat]")).to_contain_text("Already had this user ID")


def test_the_account_is_shown_to_nobody_else(stack: Stack):
    answer = request(stack, "GET", "/account/")
    assert (answer.status, answer.headers["Location"]) == (302, "/login/?next=/account/")


def test_a_script_for_a_name_is_text_on_every_page(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form | {"userName": SCRIPT})
    page.goto("/login/")
    give_password(page, person)
    page.wait_for_url("**/account/")
    expect(page.locator("h1")).to_contain_text(SCRIPT)
    page.goto("/signup/")
    wait_for_flag(page, "ready")
    fill(page, new_person(), userName=SCRIPT, email="nowhere")
    submit(page)
    expect(page.locator("[data-field=email] .field-error")).to_be_visible()
    become_admin(page, stack)
    for kind in ("user", "eventtransaction"):
        page.goto(f"/admin/authsvc/{kind}/?q={person.user_id}")
        assert page.evaluate("window.isOwned") is None
        page.locator("#result_list tbody th a").first.click()
        page.wait_for_url("**/change/**")
        inputs = "[...document.querySelectorAll('input')].map((input) => input.value).join()"
        assert SCRIPT in page.evaluate(f"document.body.innerText + {inputs}")
        assert page.evaluate("window.isOwned") is None


def test_a_password_reset_link_is_mailed_and_works_once(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    page.goto("/login/")
    page.get_by_role("link", name="Forgot your password?").click()
    page.locator("[name=email]").fill(person.email.upper())
    page.get_by_role("button", name="Send the link").click()
    expect(page.locator("h1")).to_have_text("Check your email")
    mail = eventually(lambda: re.search(rf"To: {person.email}.*?(/password/\S+)", stack.logs()["web"], re.DOTALL))
    page.goto(mail[1])
    for name in ("new_password1", "new_password2"):
        page.locator(f"[name={name}]").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Set password").click()
    expect(page.locator(".notice")).to_contain_text("Your new password is set")
    log_in(page, Person(person.user_id, person.email, person.user_name, NEW_PASSWORD))
    page.goto(mail[1])
    expect(page.locator("h1")).to_have_text("This link no longer works")


def test_an_unknown_address_gets_the_same_answer_and_no_mail(page: Page, stack: Stack, person: Person):
    page.goto("/password/")
    page.locator("[name=email]").fill(person.email)
    page.get_by_role("button", name="Send the link").click()
    expect(page.locator("h1")).to_have_text("Check your email")
    assert person.email not in stack.logs()["web"]


def test_the_password_is_changed_at_the_account(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    log_in_at(page, person)
    page.get_by_role("link", name="Change your password").click()
    for name, text in (("old_password", "wrong"), ("new_password1", "12345678"), ("new_password2", "12345678")):
        page.locator(f"[name={name}]").fill(text)
    page.get_by_role("button", name="Change password").click()
    expect(page.locator("[data-field=old_password] .field-error")).to_be_visible()
    expect(page.locator("[data-field=new_password2] .field-error")).to_contain_text("too common")
    for name, text in (
        ("old_password", person.password),
        ("new_password1", NEW_PASSWORD),
        ("new_password2", NEW_PASSWORD),
    ):
        page.locator(f"[name={name}]").fill(text)
    page.get_by_role("button", name="Change password").click()
    expect(page.locator(".notice")).to_have_text("Your password has been changed.")
    page.get_by_role("button", name="Log out").click()
    log_in(page, Person(person.user_id, person.email, person.user_name, NEW_PASSWORD))


def test_the_form_shows_errors_while_typing_and_logs_nothing(page: Page, stack: Stack, person: Person):
    page.goto("/signup/")
    wait_for_flag(page, "ready")
    page.locator("[name=userId]").fill(person.user_id)
    page.locator("[name=userName]").fill(person.user_name)
    page.locator("[name=email]").fill("nowhere")
    page.locator("[name=userPw]").fill(f"{person.user_id}1")
    expect(page.locator("[data-field=email] .field-error")).to_be_visible()
    expect(page.locator(ADVICE)).to_contain_text("too similar to the user ID")
    page.locator("[name=userPw]").fill(person.password)
    expect(page.locator(ADVICE)).to_have_text("You can use this password.")
    page.locator("[name=email]").fill(person.email)
    expect(page.locator("[data-field=email] .field-error")).to_be_hidden()
    assert not any(person.password in log for log in stack.logs().values())
    # If a form is refused before auth sees it, the earlier findings stay.
    page.locator("[name=userId]").fill("no spaces")
    page.locator("[name=email]").focus()
    expect(page.locator("[data-field=userId] .field-error")).to_be_visible()
    # A message that appears while somebody presses a button would move the button away.
    page.locator("[name=userPw2]").press_sequentially("another")
    submit(page)
    expect(page.locator("#error-summary")).to_be_focused()
    expect(page.locator("#error-summary a")).to_have_count(2)
    # The password is gone, and so is the message about it.
    expect(page.locator(ADVICE)).to_be_empty()
    expect(page.locator(ADVICE)).to_have_class("advice")
    page.locator("#error-summary a").last.click()
    expect(page.locator("[name=userPw2]")).to_be_focused()


def test_a_korean_browser_gets_korean_pages_until_the_language_is_switched(
    browser: Browser, stack: Stack, person: Person
):
    context = browser.new_context(base_url=stack.base_url, locale="ko-KR")
    page = context.new_page()
    sign_up_in(page, person, userId="빈 칸")
    expect(page.locator("[data-field=userId] .field-error")).to_contain_text("글자, 숫자")
    fill(page, person)
    submit(page)
    expect(page.locator("[data-service=chat]")).to_contain_text("채팅")
    page.wait_for_url("**/login/")
    page.get_by_role("button", name="English").click()
    expect(page.locator("h1")).to_have_text("Log in")
    page.goto("/signup/")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    context.close()
