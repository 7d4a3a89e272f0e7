"""The form in a real browser, with scripts and without: every error is explained, and one content makes one sign-up,
however often it is sent and over however bad a connection."""

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.client import SERVICES, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_page import GREEN, PASSWORD_FIELDS, fill, log_in, shown, sign_up_in, submit, wait_for_flag
from tests.stack import Stack

pytestmark = [pytest.mark.needs("application", "chromium")]

FIELD_ERROR = "[data-field={}] .field-error"


@pytest.fixture(params=["with JavaScript", "without JavaScript"])
def tab(page: Page, browser: Browser, stack: Stack, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty tab with scripts and without."""
    if request.param == "with JavaScript":
        yield page
        return
    context = browser.new_context(base_url=stack.base_url, java_script_enabled=False, locale="en-US")
    yield context.new_page()
    context.close()


def signups(stack: Stack, person: Person) -> list[str]:
    """The userId of each sign-up that auth has with this person's email address."""
    rows = stack.query("auth", f"SELECT user_id FROM authsvc_signup WHERE email = '{person.email}'")
    return sorted(user_id for (user_id,) in rows)


def assert_nothing_is_saved(tab: Page, stack: Stack, person: Person) -> None:
    """No service knows the person, and the page does not tell the password."""
    assert person.password not in tab.content()
    assert signups(stack, person) == []
    assert [row for service in SERVICES for row in stack.rows(service) if row.email == person.email] == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param("userId", "a" * 1000, "2 to 32 characters", id="long"),
        pytest.param("userId", "smile🙂", "letters", id="emoji"),
        pytest.param("userName", "Ho\0ng", "Null characters", id="NUL"),
    ],
)
def test_an_invalid_value_is_reported_at_its_field_and_nothing_is_half_saved(
    tab: Page, stack: Stack, person: Person, name: str, value: str, words: str
):
    tab.goto("/signup/")
    fill(tab, person, **{name: value})
    submit(tab)
    expect(tab.locator(FIELD_ERROR.format(name))).to_contain_text(words)
    expect(tab.locator("[name=email]")).to_have_value(person.email)
    for password in PASSWORD_FIELDS:
        expect(tab.locator(f"[name={password}]")).to_have_value("")
    assert_nothing_is_saved(tab, stack, person)


def test_10_megabytes_are_reported_as_too_long(tab: Page, stack: Stack, person: Person):
    tab.goto("/signup/")
    fill(tab, person)
    # Hidden, because Chromium takes half a minute to draw a field with so much text.
    tab.locator("[name=userName]").evaluate("field => { field.hidden = true; field.value = 'a'.repeat(10_000_000); }")
    submit(tab)
    expect(tab.locator("body")).to_contain_text("too long")
    assert_nothing_is_saved(tab, stack, person)


def test_a_user_id_in_hangul_is_accepted(page: Page, person: Person):
    person = replace(person, user_id=f"홍길동{secrets.token_hex(4)}")
    sign_up_in(page, person)
    page.wait_for_url("**/login/")
    log_in(page, person)


def test_a_corrected_form_whose_answer_is_lost_is_sent_again_and_ends_green(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    newcomer = new_person()
    sign_up_in(page, newcomer, userId=person.user_id)
    expect(page.locator(FIELD_ERROR.format("userId"))).to_be_visible()

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    # The lights would tell that it has arrived, and go on.
    page.route_web_socket("**/ws/**", lambda socket: socket.close())
    page.route("**/signup/status/**", lambda route: route.abort())
    page.route("**/signup/", lose_the_answer, times=1)
    fill(page, newcomer)
    submit(page)
    expect(page.locator("#error-summary")).to_contain_text("The connection was lost")
    page.unroute("**/signup/status/**")
    submit(page)
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN
    assert signups(stack, newcomer) == sorted([person.user_id, newcomer.user_id])
    log_in(page, newcomer)


def test_a_double_click_signs_up_once_also_when_the_form_was_corrected(tab: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    newcomer = new_person()
    button = tab.locator("#signup-form [type=submit]")
    tab.goto("/signup/")
    fill(tab, newcomer, userId=person.user_id)
    button.dblclick()
    expect(tab.locator(FIELD_ERROR.format("userId"))).to_be_visible()
    fill(tab, newcomer)
    button.dblclick()
    tab.wait_for_url("**/login/")
    assert signups(stack, newcomer) == sorted([person.user_id, newcomer.user_id])
    log_in(tab, newcomer)


def test_a_browser_that_keeps_nothing_for_the_site_shows_the_lights_all_the_same(page: Page, person: Person):
    page.add_init_script(
        'Object.defineProperty(window, "sessionStorage", { get() { throw new DOMException("no", "SecurityError"); } });'
    )
    sign_up_in(page, person)
    page.wait_for_url("**/login/")


def test_a_form_that_is_refused_as_foreign_explains_what_to_do(page: Page, stack: Stack, person: Person):
    page.goto("/signup/")
    wait_for_flag(page, "ready")

    def send_without_cookies(route: Route) -> None:
        page.context.clear_cookies()
        route.continue_()

    # Each time: the answer to the first brings new ones, with which the form is sent again.
    page.route("**/signup/", send_without_cookies)
    fill(page, person)
    submit(page)
    expect(page.locator("#error-summary")).to_contain_text("allow cookies")
    expect(page.locator("[name=userId]")).to_have_value(person.user_id)
    assert signups(stack, person) == []
