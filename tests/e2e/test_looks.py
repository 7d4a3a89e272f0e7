"""The appearance of the pages: axe finds no violation in either colour scheme, nothing is blocked, and pictures are
kept.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from signup_sync.participants import PARTICIPANTS
from tests.client import produce, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_account import become_admin
from tests.e2e.test_api import requested, row
from tests.e2e.test_page import fill, keep_picture, log_in, sign_up_in, stopped, submit, wait_for_flag
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
HEAR_ANNOUNCEMENTS = """
    window.said = [];
    addEventListener("DOMContentLoaded", () => {
      const region = document.getElementById("announcement");
      new MutationObserver(() => window.said.push(region.textContent)).observe(region, { childList: true });
    });
"""
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
axe = Axe()


@pytest.fixture
def still(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A tab without animations. Any violation of the policy and any script error fails the test."""
    context = browser.new_context(base_url=stack.base_url, locale="en-US", reduced_motion="reduce")
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield tab
    context.close()
    # Chromium logs this for every answer with a status such as 422.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []


def assert_accessible(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert_nothing_found(page, [*WCAG, "best-practice"])


def assert_nothing_found(page: Page, rules: Sequence[str]) -> None:
    found = axe.run(page, options={"runOnly": rules})
    assert found.violations_count == 0, f"{page.url}\n{found.generate_report()}"


def keep_pictures(page: Page, name: str) -> None:
    """One colour scheme on a phone, the other on a desktop."""
    for device, size, scheme in (("phone", PHONE, "light"), ("desktop", DESKTOP, "dark")):
        if name == "lights":
            scheme = {"light": "dark", "dark": "light"}[scheme]
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        keep_picture(page, f"{name}-{device}-{scheme}.png")


def test_the_form_looks_right_and_is_accessible(still: Page, person: Person):
    still.goto("/signup/")
    wait_for_flag(still, "ready")
    assert_accessible(still)
    fill(still, Person("mina.k", "mina@example.org", "Mina Kim", "correct horse battery"))
    expect(still.locator("#password-advice")).to_contain_text("You can use this password")
    keep_pictures(still, "form")
    fill(still, person, userId="no spaces")
    submit(still)
    expect(still.locator("#error-summary")).to_be_focused()
    assert_accessible(still)


def test_password_managers_know_each_field(still: Page):
    names = {
        "userId": "username",
        "userName": "name",
        "email": "email",
        "userPw": "new-password",
        "userPw2": "new-password",
    }
    still.goto("/signup/")
    for field, name in names.items():
        expect(still.locator(f"[name={field}]")).to_have_attribute("autocomplete", name)
    still.goto("/login/")
    expect(still.locator("[name=username]")).to_have_attribute("autocomplete", "username")
    expect(still.locator("[name=password]")).to_have_attribute("autocomplete", "current-password")


def test_the_lights_look_right_and_are_accessible(still: Page, stack: Stack, person: Person):
    produce(stack, "user.newUser.req", requested(person, services=["chat"]), key=person.user_id)
    eventually(lambda: row(person) in stack.rows("chat"))
    still.add_init_script(HEAR_ANNOUNCEMENTS)
    with stopped(stack, *(service for service in PARTICIPANTS if service != "chat")):
        sign_up_in(still, person)
        expect(still.locator("#lights-title")).to_be_focused()
        expect(still.locator("[data-service=chat]")).to_have_attribute("data-status", "FAIL")
        for service, sign in (("auth", "success"), ("chat", "fail"), ("customer", "pending")):
            # Readable without its colour.
            expect(still.locator(f"[data-service={service}] svg:visible")).to_have_class(f"sign-{sign}")
        assert " ".join(still.evaluate("window.said")) == "Auth: Ready. Chat: Already had this user ID."
        assert still.evaluate("document.getAnimations().length") == 0
        assert_accessible(still)
        keep_pictures(still, "lights")


@pytest.mark.parametrize("path", ["/docs/", "/docs/api/", "/docs/events/"])
def test_the_pages_for_developers_look_right_and_are_accessible(still: Page, path: str):
    still.goto(path)
    for example in still.locator("summary").all():
        example.click()
    assert_accessible(still)
    keep_pictures(still, path.strip("/").replace("/", "-"))
    still.set_viewport_size(PHONE)
    assert still.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_login_account_and_password_pages_look_right_and_are_accessible(still: Page, stack: Stack, person: Person):
    sign_up(stack, person.form)
    for path in ("/login/", "/password/", "/password/sent/", "/password/MQ/made-up/", "/signup/status/made-up/"):
        still.goto(path)
        assert_accessible(still)
    still.goto("/login/")
    log_in(still, person)
    assert_accessible(still)
    keep_picture(still, "account.png")
    still.get_by_role("link", name="Change your password").click()
    assert_accessible(still)


def test_the_policy_lets_the_administration_work(still: Page, stack: Stack):
    staff = new_person()
    sign_up(stack, staff.form)
    become_admin(still, stack)
    for path in (
        "",
        f"authsvc/user/?q={staff.user_id}",
        "authsvc/eventtransaction/",
        "chatsvc/chatuser/add/",
        "auth/group/add/",
    ):
        still.goto(f"/admin/{path}")
        expect(still.locator("#content h1")).to_be_visible()
    # Built by Django's own script: the two boxes of permissions.
    expect(still.locator("#id_permissions_to")).to_be_visible()


ADMINISTRATION = (
    "", "authsvc/eventtransaction/", "authsvc/trafficminute/", "eventbus/topic/", "eventbus/topic/user.newUser.req/",
    "eventbus/instance/", "eventbus/deadletter/", "livesettings/overrides/",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_administration(page: Page, stack: Stack, scheme: Literal["light", "dark"]):
    # Not `still`: axe itself writes styles for the sheets that Django's import, and the policy stops them.
    become_admin(page, stack)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for path in ADMINISTRATION:
        page.goto(f"/admin/{path}")
        # Not the best practices: Django's own pages leave out headings.
        assert_nothing_found(page, WCAG)
