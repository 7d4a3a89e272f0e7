"""Faulty networks and browsers: a proxy that swallows messages, files that don't load, cookies that change meanwhile.

The network is simulated where a server of ours cannot be made to act like that: by intercepted requests and sockets.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, WebSocketRoute, expect

from tests.client import sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_form import signups
from tests.e2e.test_page import (
    GREEN,
    PASSWORD_FIELDS,
    fill,
    keep_picture,
    lights,
    log_in,
    shown,
    sign_up_in,
    stopped,
    submit,
    wait_for_flag,
    wait_for_lights,
)
from tests.stack import Stack
from tests.waiting import eventually, slowness

pytestmark = [pytest.mark.needs("application", "chromium")]

FORM = "**/signup/"
STATUS = "**/signup/status/**"
SOCKETS = "**/ws/signup/**"
NO_SOCKET = "Live updates are not available"
# Three are as many as a company's single sign-on leaves at a host.
COOKIE = "x" * 3000


@pytest.fixture
def without_scripts(browser: Browser, stack: Stack) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=stack.base_url, java_script_enabled=False, locale="en-US")
    yield context
    context.close()


def swallow(page: Page, held: list[Route]) -> None:
    """The form arrives, and its answer never comes back, without a reset."""

    def keep(route: Route) -> None:
        if route.request.method != "POST":
            route.fallback()
            return
        route.fetch()
        held.append(route)

    page.route(FORM, keep)


def hold(page: Page, held: list[Route]) -> None:
    """The form does not even arrive."""
    page.route(FORM, lambda route: held.append(route) if route.request.method == "POST" else route.fallback())


def mute(page: Page) -> list[WebSocketRoute]:
    """Sockets that open and never say anything."""
    opened: list[WebSocketRoute] = []
    page.route_web_socket(SOCKETS, lambda socket: opened.append(socket))
    return opened


def never_open(page: Page) -> None:
    """Sockets whose handshake is not answered. Playwright's interception opens each at once."""
    page.add_init_script("window.WebSocket = class extends EventTarget { static OPEN = 1; close() {} };")


def refuse_sockets(page: Page) -> None:
    page.route_web_socket(SOCKETS, lambda socket: socket.close(code=1013))


def announced(page: Page) -> str:
    """All texts announced to a screen reader."""
    return str(page.evaluate("window.announced.join(' ')"))


def listen_to_announcements(page: Page) -> None:
    page.add_init_script(
        """window.announced = [];
        addEventListener("DOMContentLoaded", () => {
            const place = document.getElementById("announcement");
            const push = () => window.announced.push(place.textContent);
            if (place) new MutationObserver(push).observe(place, { childList: true });
        });"""
    )


def test_the_lights_work_with_nine_kilobytes_of_cookies(page: Page, stack: Stack, person: Person):
    page.context.add_cookies([{"name": f"sso{i}", "value": COOKIE, "url": stack.base_url} for i in range(3)])
    sign_up_in(page, person)
    page.wait_for_url("**/login/", timeout=6000 * slowness())
    assert shown(page)[-1] == GREEN


@pytest.mark.parametrize("network", [never_open, refuse_sockets, mute])
def test_if_the_socket_stays_silent_the_lights_are_read_over_http(
    page: Page, stack: Stack, person: Person, network: Callable[[Page], object]
):
    listen_to_announcements(page)
    network(page)
    with stopped(stack, "customer"):
        sign_up_in(page, person)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        expect(page.locator("#notice")).to_contain_text(NO_SOCKET)
        assert NO_SOCKET in announced(page)
        keep_picture(page, "no-socket.png")
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN


def test_without_a_connection_the_page_reports_that_and_continues_when_it_is_back(page: Page, person: Person):
    listen_to_announcements(page)
    refuse_sockets(page)
    page.route(STATUS, lambda route: route.abort())
    page.goto("/signup/")
    fill(page, person)
    submit(page)
    expect(page.locator("#notice")).to_contain_text("The connection is lost")
    assert "The connection is lost" in announced(page)
    keep_picture(page, "lost.png")
    page.unroute(STATUS)
    expect(page.locator("#notice")).not_to_contain_text("The connection is lost")
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN


def test_the_page_draws_each_message_except_older_ones(page: Page, person: Person):
    listen_to_announcements(page)
    page.route(STATUS, lambda route: route.abort())
    hold(page, [])
    sockets = mute(page)
    sign_up_in(page, person)
    eventually(lambda: sockets, what="the socket is open")
    signup_id = page.evaluate("JSON.parse(document.getElementById('signup-data').textContent).page.signupId")
    rest = {"action": None, "next": None, "isOver": False, "errors": {}, "text": "…"}

    def tell(version: int | None, title: str, *, stage: int, chat: str = "PENDING", **also: Any) -> None:
        lights = [
            {"service": name, "name": name, "status": status, "word": f"{name} {version}", "took": ""}
            for name, status in {"auth": "SUCCESS", "chat": chat, "added": "PENDING"}.items()
        ]
        message = {"signupId": signup_id} | ({"version": version} if version else {})
        drawn = rest | {"title": title, "stage": stage, "outcome": title, "lights": lights} | also
        sockets[0].send(json.dumps(message | {"shown": drawn}))

    heading = page.locator("#lights-title")
    tell(2, "begun", stage=0)
    expect(heading).to_have_text("begun")
    tell(1, "older", stage=0)
    assert lights(page) == {"auth": "SUCCESS", "chat": "PENDING", "added": "PENDING"}
    tell(None, "slow", stage=1, chat="FAIL", action="login")
    expect(heading).to_have_text("slow")
    expect(page.get_by_role("link", name="Continue to log in")).to_be_visible()
    assert lights(page)["chat"] == "PENDING"  # without a version, only the outcome counts
    tell(3, "begun", stage=0, chat="FAIL")
    sockets[0].send(json.dumps({"signupId": signup_id, "version": 9, "services": {}}))  # of an earlier release
    expect(page.locator("[data-service=chat] .light-word")).to_have_text("chat 3")
    expect(heading).to_have_text("slow")
    tell(4, "slow", stage=1, chat="FAIL")
    expect(page.locator("[data-service=chat] .light-word")).to_have_text("chat 4")
    expect(heading).to_have_text("slow")
    assert "older" not in announced(page)
    tell(5, "over", stage=3, chat="FAIL", isOver=True, next="/login/")
    page.wait_for_url("**/login/")
    assert [state["chat"] for state in shown(page)] == ["PENDING", "PENDING", "FAIL", "FAIL", "FAIL"]


def test_if_the_answer_never_arrives_the_socket_shows_the_lights(page: Page, stack: Stack, person: Person):
    held: list[Route] = []
    swallow(page, held)
    sign_up_in(page, person)
    page.wait_for_url("**/login/", timeout=8000 * slowness())
    assert shown(page)[-1] == GREEN
    assert signups(stack, person) == [person.user_id]


def test_if_neither_the_answer_nor_a_socket_comes_the_lights_are_read_over_http(page: Page, person: Person):
    held: list[Route] = []
    swallow(page, held)
    never_open(page)
    sign_up_in(page, person)
    page.wait_for_url("**/login/", timeout=8000 * slowness())
    assert shown(page)[-1] == GREEN


def test_a_refusal_that_never_arrives_leads_back_to_the_form(page: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    newcomer = new_person()
    held: list[Route] = []
    swallow(page, held)
    sign_up_in(page, newcomer, userId=person.user_id)
    expect(page.locator("[data-field=userId] .field-error")).to_be_visible()
    expect(page.locator("#error-summary")).to_be_focused()
    page.unroute(FORM)
    fill(page, newcomer)
    submit(page)
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN


def test_a_form_without_an_answer_reports_that_and_returns_in_time(page: Page, stack: Stack, person: Person):
    listen_to_announcements(page)
    held: list[Route] = []
    hold(page, held)
    page.clock.install()
    sign_up_in(page, person)
    page.clock.run_for(6000)
    expect(page.locator("#notice")).to_contain_text("There is no answer to your form yet")
    assert "There is no answer to your form yet" in announced(page)
    keep_picture(page, "no-answer.png")
    page.clock.run_for(25_000)
    expect(page.locator("#error-summary")).to_contain_text("The connection was lost")
    for name in PASSWORD_FIELDS:
        expect(page.locator(f"[name={name}]")).to_have_value(person.password)
    page.unroute(FORM)
    submit(page)
    page.wait_for_url("**/login/")
    assert signups(stack, person) == [person.user_id]


def test_messages_about_the_forms_earlier_content_are_not_drawn_as_those_of_its_new_content(page: Page, person: Person):
    def lose(route: Route) -> None:
        if route.request.method != "POST":
            route.fallback()
            return
        route.fetch()
        route.abort()

    hidden: list[Route] = []
    mute(page)
    page.route(STATUS, lambda route: route.abort())
    page.route(FORM, lose)
    sign_up_in(page, person)
    expect(page.locator("#error-summary")).to_contain_text("The connection was lost")
    page.unroute(STATUS)
    page.unroute(FORM)
    hold(page, hidden)
    fill(page, new_person())
    with page.expect_response(STATUS) as told:
        submit(page)
    assert told.value.json()["state"]["services"]["auth"]["status"] == "SUCCESS"
    assert lights(page) == dict.fromkeys(GREEN, "PENDING")


@pytest.mark.parametrize("file", ["signup.js", "channel.js", "lights.js"])
def test_if_the_script_does_not_load_the_page_reloads_itself(page: Page, stack: Stack, person: Person, file: str):
    page.route(f"**/front/{file}", lambda route: route.abort())
    with stopped(stack, "customer"):
        page.goto("/signup/")
        fill(page, person)
        submit(page)
        page.wait_for_url("**/signup/status/**")
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        wait_for_lights(page, GREEN | {"customer": "PENDING"})
    page.wait_for_url("**/login/")


def test_a_page_with_its_script_is_not_reloaded(page: Page, stack: Stack, person: Person):
    loads: list[object] = []
    with stopped(stack, "customer"):
        sign_up_in(page, person)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        page.reload()
        wait_for_flag(page, "connected")
        page.on("load", lambda tab: loads.append(tab))
        page.wait_for_timeout(3000)  # the passing of this time is what is tested
        assert loads == []
    page.wait_for_url("**/login/")


@pytest.mark.parametrize("has_scripts", [True, False])
def test_the_input_is_kept_when_the_language_changes(
    page: Page, without_scripts: BrowserContext, person: Person, has_scripts: bool
):
    tab = page if has_scripts else without_scripts.new_page()
    tab.goto("/signup/")
    fill(tab, person)
    tab.get_by_role("button", name="한국어").click()
    expect(tab.locator("html")).to_have_attribute("lang", "ko")
    expect(tab.locator("[name=userId]")).to_have_value(person.user_id)
    expect(tab.locator("[name=userName]")).to_have_value(person.user_name)
    expect(tab.locator("[name=email]")).to_have_value(person.email)
    for name in PASSWORD_FIELDS:
        expect(tab.locator(f"[name={name}]")).to_have_value("")
    assert person.password not in tab.content()
    keep_picture(tab, "other-language.png")
    fill(tab, person)
    tab.locator("[name=userPw2]").press("Enter")  # and Enter sends the form: it does not change the language
    tab.wait_for_url("**/login/")
    expect(tab.locator("html")).to_have_attribute("lang", "ko")


@pytest.mark.parametrize("has_scripts", [True, False])
@pytest.mark.parametrize(("path", "field"), [("/login/?next=/account/password/", "username"), ("/password/", "email")])
def test_login_and_password_reset_keep_the_input_when_the_language_changes(
    page: Page, without_scripts: BrowserContext, stack: Stack, person: Person, path: str, field: str, has_scripts: bool
):
    sign_up(stack, person.form)
    typed = person.email if field == "email" else person.user_id
    tab = page if has_scripts else without_scripts.new_page()
    tab.goto(path)
    tab.locator(f"[name={field}]").fill(typed)
    for password in tab.locator("[type=password]").all():
        password.fill(person.password)
    tab.get_by_role("button", name="한국어").click()
    expect(tab.locator("html")).to_have_attribute("lang", "ko")
    expect(tab.locator(f"[name={field}]")).to_have_value(typed)
    for password in tab.locator("[type=password]").all():
        expect(password).to_have_value("")
        password.fill(person.password)
    expect(tab.locator("#error-summary")).to_be_hidden()
    keep_picture(tab, f"other-language-{field}.png")
    tab.locator(f"[name={field}]").press("Enter")  # and Enter sends the form: it does not change the language
    tab.wait_for_url("**/password/sent/" if field == "email" else "**/account/password/")
    expect(tab.locator("html")).to_have_attribute("lang", "ko")


def test_the_language_of_the_lights_changes_too(page: Page, stack: Stack, person: Person):
    with stopped(stack, "customer"):
        sign_up_in(page, person)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        with page.expect_websocket(lambda socket: socket.url.endswith("?language=ko")):
            page.get_by_role("button", name="한국어").click()
        expect(page.locator("html")).to_have_attribute("lang", "ko")
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
    page.wait_for_url("**/login/")


def log_in_elsewhere(tab: Page, stack: Stack) -> None:
    """In another tab of the same browser."""
    other = new_person()
    sign_up(stack, other.form)
    elsewhere = tab.context.new_page()
    elsewhere.goto("/login/")
    log_in(elsewhere, other)


def open_elsewhere(tab: Page, stack: Stack) -> None:
    """As if two first visits had begun together: the second one's cookies replace the first one's."""
    tab.context.clear_cookies()
    tab.context.new_page().goto("/signup/")


def lose_cookie_of_browser(tab: Page, stack: Stack) -> None:
    """The same for a browser that already had a token."""
    tab.context.clear_cookies(name="signup_browser")
    tab.context.new_page().goto("/signup/")


@pytest.mark.parametrize("event", [log_in_elsewhere, open_elsewhere, lose_cookie_of_browser])
def test_a_form_is_sent_whatever_another_tab_has_done(
    page: Page, stack: Stack, person: Person, event: Callable[[Page, Stack], None]
):
    page.goto("/signup/")
    wait_for_flag(page, "ready")
    fill(page, person)
    event(page, stack)
    submit(page)
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN
    assert signups(stack, person) == [person.user_id]


@pytest.mark.parametrize("event", [log_in_elsewhere, open_elsewhere])
def test_without_scripts_a_form_comes_back_as_it_was_typed_when_another_tab_has_logged_in(
    without_scripts: BrowserContext, stack: Stack, person: Person, event: Callable[[Page, Stack], None]
):
    tab = without_scripts.new_page()
    tab.goto("/signup/")
    fill(tab, person)
    event(tab, stack)
    submit(tab)
    expect(tab.locator("[role=alert].notice")).to_contain_text("send it again")
    expect(tab.locator("[name=email]")).to_have_value(person.email)
    expect(tab.locator("[name=userPw]")).to_have_value("")
    keep_picture(tab, "outdated-form.png")
    fill(tab, person)
    submit(tab)
    tab.wait_for_url("**/login/")
    assert signups(stack, person) == [person.user_id]


@pytest.mark.parametrize("has_scripts", [True, False])
def test_the_login_form_is_filled_in_with_the_user_id_that_signed_up(
    page: Page, without_scripts: BrowserContext, person: Person, has_scripts: bool
):
    tab = page if has_scripts else without_scripts.new_page()
    tab.goto("/signup/")
    fill(tab, person)
    submit(tab)
    tab.wait_for_url("**/login/")
    expect(tab.locator("[name=username]")).to_have_value(person.user_id)
    expect(tab.locator("[name=password]")).to_be_focused()
    keep_picture(tab, "prefilled.png")
    tab.locator("[name=password]").fill(person.password)
    tab.locator("main [type=submit]").click()
    tab.wait_for_url("**/account/")
    tab.get_by_role("button", name="Log out").click()
    expect(tab.locator("[name=username]")).to_have_value("")


def test_eleven_decomposed_syllables_log_in(page: Page, person: Person):
    decomposed = unicodedata.normalize("NFD", "각" * 11)
    assert len(decomposed) > 32
    someone = replace(person, user_id=decomposed + person.user_id[-4:])
    sign_up_in(page, someone)
    page.wait_for_url("**/login/")
    page.locator("[name=username]").clear()
    log_in(page, someone)
    eventually(lambda: page.url.endswith("/account/"))
