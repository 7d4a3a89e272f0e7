"""The sign-up as a person sees it, in a real browser over the whole installation."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.client import SERVICES, produce, sign_up
from tests.conftest import ARTIFACTS, Person, new_person
from tests.e2e.test_api import requested, row
from tests.plugin import Backing
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
ORANGE = dict.fromkeys(SERVICES, "PENDING")
GREEN = dict.fromkeys(SERVICES, "SUCCESS")
PASSWORD_FIELDS = ("userPw", "userPw2")


def fill(page: Page, person: Person, **instead: str) -> None:
    fields = {"userId": person.user_id, "userName": person.user_name, "email": person.email} | instead
    for name, value in fields.items():
        page.locator(f"[name={name}]").fill(value)
    for name in PASSWORD_FIELDS:
        page.locator(f"[name={name}]").fill(person.password)


def submit(page: Page) -> None:
    page.locator("#signup-form [type=submit]").click()


def sign_up_in(page: Page, person: Person, **instead: str) -> None:
    page.goto("/signup/")
    wait_for_flag(page, "ready")
    fill(page, person, **instead)
    submit(page)


def wait_for_flag(page: Page, name: str) -> None:
    """Wait for a flag that the script sets. wait_for_function can't be used, because the page's policy forbids its
    polling code.
    """
    eventually(lambda: page.evaluate(f"window.signupSync.{name}"), what=f"the page is {name}")


def shown(page: Page) -> list[dict[str, str]]:
    """The states that the tab has shown, in order, as status by service, even after the page has navigated away."""
    states = json.loads(page.evaluate("sessionStorage.getItem('signupSync.shown')") or "[]")
    versions = [state.pop("version") for state in states]
    assert versions == sorted(set(versions)), "versions only rise"
    return states


def lights(page: Page) -> dict[str, str]:
    """The current lights of the page."""
    items = page.locator("#lights .light").all()
    return {item.get_attribute("data-service") or "": item.get_attribute("data-status") or "" for item in items}


def wait_for_lights(page: Page, expected: dict[str, str]) -> None:
    eventually(lambda: lights(page) == expected, what=f"the lights are {expected}")


def open_socket_that_is_idle(tab: Page, closed: list[object]) -> list[dict[str, Any]]:
    """Open a new form and its socket, which gets no message until the form is posted. Return its messages; the
    socket is added to `closed` when it closes."""
    tab.goto("/signup/")
    wait_for_flag(tab, "ready")
    heard: list[dict[str, Any]] = []
    with tab.expect_websocket() as opened:
        tab.evaluate(
            """() => {
                const { page } = JSON.parse(document.getElementById("signup-data").textContent);
                window.idle = new WebSocket(location.origin.replace("http", "ws") + page.socketPath);
                return new Promise((opened) => window.idle.addEventListener("open", opened));
            }"""
        )
    opened.value.on("framereceived", lambda text: heard.append(json.loads(text)))
    opened.value.on("close", lambda gone: closed.append(gone))
    return heard


def give_password(page: Page, person: Person) -> None:
    """Submit the current login form, of the site or of the administration."""
    page.locator("[name=username]").fill(person.user_id)
    page.locator("[name=password]").fill(person.password)
    page.locator("main [type=submit], #login-form [type=submit]").first.click()


def log_in(page: Page, person: Person) -> None:
    give_password(page, person)
    page.wait_for_url("**/account/")
    expect(page.locator("main")).to_contain_text(person.user_name)


@contextmanager
def stopped(stack: Stack, *names: str) -> Iterator[None]:
    """The installation without these roles."""
    for name in names:
        stack.roles[name].stop()
    try:
        yield
    finally:
        for name in names:
            if not stack.roles[name].running:
                stack.roles[name].start()


def keep_picture(page: Page, name: str) -> None:
    """Keep a picture for review and, if UPDATE_PICTURES is set, for the README."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / name, animations="disabled", full_page=True)
    if os.environ.get("UPDATE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        shutil.copy(ARTIFACTS / name, PICTURES / name)


def test_a_new_user_sees_orange_then_green_and_logs_in(page: Page, person: Person):
    sign_up_in(page, person)
    page.wait_for_url("**/login/")
    states = shown(page)
    assert states[0] == ORANGE
    assert states[-1] == GREEN
    assert all("FAIL" not in state.values() for state in states)
    log_in(page, person)


def test_a_user_that_chat_already_had_sees_only_chat_red_and_the_next_step(page: Page, stack: Stack, person: Person):
    produce(stack, "user.newUser.req", requested(person, services=["chat"]), key=person.user_id)
    eventually(lambda: row(person) in stack.rows("chat"))
    sign_up_in(page, person)
    expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "FAIL")
    expect(page.locator("[data-service=customer]")).to_have_attribute("data-status", "SUCCESS")
    wait_for_lights(page, GREEN | {"chat": "FAIL"})
    assert {state["chat"] for state in shown(page)} == {"PENDING", "FAIL"}
    expect(page.locator("#lights-panel")).to_contain_text("Chat")
    page.get_by_role("link", name="Continue to log in").click()
    log_in(page, person)


def test_a_taken_user_id_returns_the_form_with_the_message_at_the_field(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    newcomer = new_person()
    sign_up_in(page, newcomer, userId=person.user_id)
    field = page.locator("[data-field=userId]")
    expect(field.locator(".field-error")).to_be_visible()
    expect(page.locator("#error-summary")).to_be_focused()
    expect(page.locator("[name=userId]")).to_have_value(person.user_id)
    expect(page.locator("[name=email]")).to_have_value(newcomer.email)
    for name in PASSWORD_FIELDS:
        expect(page.locator(f"[name={name}]")).to_have_value("")
    fill(page, newcomer)
    submit(page)
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN


def test_a_taken_email_is_shown_at_the_email(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    sign_up_in(page, new_person(), email=person.email)
    expect(page.locator("[data-field=email] .field-error")).to_be_visible()
    expect(page.locator("[data-field=userId] .field-error")).to_be_hidden()


def test_a_refused_sign_up_restores_the_existing_user_that_customer_lost(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    stack.query("customer", f"DELETE FROM customersvc_customer WHERE email = '{person.email}'")
    sign_up_in(page, new_person(), userId=person.user_id)
    expect(page.locator("[data-field=userId] .field-error")).to_be_visible()
    eventually(lambda: row(person) in stack.rows("customer"))


def test_a_light_is_orange_until_its_service_answers_and_an_idle_socket_stays(
    page: Page, stack: Stack, person: Person, backing: Backing
):
    produce(stack, "user.newUser.req", requested(person, services=["chat"]), key=person.user_id)
    eventually(lambda: row(person) in stack.rows("chat"))
    with stopped(stack, "customer"):
        closed: list[object] = []
        page.on("websocket", lambda socket: socket.on("close", lambda gone: closed.append(gone)))
        sign_up_in(page, person)
        tab = page.context.new_page()
        heard = open_socket_that_is_idle(tab, closed)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "FAIL")
        wait_for_lights(page, GREEN | {"chat": "FAIL", "customer": "PENDING"})
        if backing.stack == "real":
            # The time itself is tested: redis-py's default closed every quiet socket after 5 s.
            page.wait_for_timeout(62_000)
            expect(page.locator("#lights-panel")).to_have_attribute("data-outcome", "delayed")
        assert (heard, closed) == ([], [])
    expect(page.locator("[data-service=customer]")).to_have_attribute("data-status", "SUCCESS")
    assert shown(page)[-1] == GREEN | {"chat": "FAIL"}
    fill(tab, new_person())
    submit(tab)
    tab.wait_for_url("**/login/")
    versions = [state["version"] for state in heard]
    assert versions == sorted(set(versions))
    assert heard[-1]["complete"]


def test_form_errors_keep_the_input_but_never_the_password(page: Page, person: Person):
    sign_up_in(page, person, userId="no spaces 🙂", email="nowhere")
    expect(page.locator("[data-field=userId] .field-error")).to_be_visible()
    expect(page.locator("[data-field=email] .field-error")).to_be_visible()
    expect(page.locator("[name=userId]")).to_have_value("no spaces 🙂")
    assert person.password not in page.content()
    expect(page.locator("[data-field=userId]")).to_contain_text("letters")


def test_a_reload_shows_the_lights_and_sends_nothing_twice(page: Page, stack: Stack, person: Person):
    with stopped(stack, "customer"):
        sign_up_in(page, person)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        page.reload()
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        wait_for_lights(page, GREEN | {"customer": "PENDING"})
    page.wait_for_url("**/login/")
    assert len(stack.query("auth", f"SELECT id FROM authsvc_signup WHERE email = '{person.email}'")) == 1


def test_a_page_that_lost_its_process_reconnects_and_shows_the_final_state(page: Page, stack: Stack, person: Person):
    with stopped(stack, "customer"):
        sign_up_in(page, person)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        stack.roles["web"].kill()
        expect(page.locator("#notice")).to_be_visible()
        stack.roles["web"].start()
        wait_for_flag(page, "connected")
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#announcement")).to_have_text("The connection is back.")
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN


@pytest.mark.needs("caddy")
def test_while_auth_is_down_the_form_shows_the_error_and_a_later_attempt_works(
    page: Page, stack: Stack, person: Person
):
    with stopped(stack, "auth-1", "auth-2"):
        sign_up_in(page, person)
        expect(page.locator("#error-summary")).to_be_visible()
        expect(page.locator("[name=userId]")).to_have_value(person.user_id)
        assert stack.query("auth", f"SELECT id FROM authsvc_signup WHERE email = '{person.email}'") == []
    for name in PASSWORD_FIELDS:
        page.locator(f"[name={name}]").fill(person.password)
    submit(page)
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN


def test_without_javascript_the_lights_are_shown_and_the_page_continues(browser: Browser, stack: Stack, person: Person):
    context = browser.new_context(base_url=stack.base_url, java_script_enabled=False, locale="en-US")
    page = context.new_page()
    with stopped(stack, "customer"):
        page.goto("/signup/")
        fill(page, person)
        submit(page)
        page.wait_for_url("**/signup/status/**")
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        wait_for_lights(page, GREEN | {"customer": "PENDING"})
        expect(page.locator("[data-service=customer]")).to_contain_text("Waiting")
    page.wait_for_url("**/login/")
    log_in(page, person)
    context.close()


def test_without_javascript_a_taken_user_id_is_shown_at_the_form(browser: Browser, stack: Stack, person: Person):
    sign_up(stack, person.form)
    context = browser.new_context(base_url=stack.base_url, java_script_enabled=False, locale="en-US")
    page = context.new_page()
    page.goto("/signup/")
    fill(page, new_person(), userId=person.user_id)
    submit(page)
    expect(page.locator("[data-field=userId] .field-error")).to_be_visible()
    expect(page.locator("[name=userId]")).to_have_value(person.user_id)
    expect(page.locator("[name=userPw]")).to_have_value("")
    context.close()
