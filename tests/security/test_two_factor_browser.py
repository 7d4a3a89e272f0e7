"""Two-factor authentication as a person uses it, in a real browser over the whole installation."""

import time
from base64 import b32decode

import pytest
from django_otp.oath import TOTP
from playwright.sync_api import Page, expect

from tests.client import request
from tests.conftest import ARTIFACTS, Person, new_person
from tests.e2e.test_api import log_in as session_of
from tests.e2e.test_looks import DESKTOP, PHONE, assert_accessible
from tests.e2e.test_looks import still as still
from tests.e2e.test_page import give_password
from tests.plugin import Backing
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]


@pytest.fixture
def administrator(stack: Stack) -> Person:
    staff = new_person()
    stack.manage(
        "createsuperuser", "--noinput", "--user_id", staff.user_id, "--email", staff.email,
        DJANGO_SUPERUSER_PASSWORD=staff.password,
    )  # fmt: skip
    return staff


def give_password_at(page: Page, person: Person, path: str = "/login/") -> None:
    page.goto(path)
    give_password(page, person)


def give_code(page: Page, code: str) -> None:
    page.locator("[name=code]").fill(code)
    page.locator("main form:not(.languages) [type=submit]").click()


def confirm(page: Page, person: Person, code: str) -> None:
    page.locator("[name=password]").fill(person.password)
    give_code(page, code)


def log_out(page: Page) -> None:
    page.goto("/account/")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login/")


def code_of(secret: str, *, ahead: int = 0) -> str:
    """The code that an app with this secret shows `ahead` steps of 30 s from now."""
    totp = TOTP(b32decode(secret.replace(" ", "")))
    totp.time = time.time() + 30 * ahead
    return f"{totp.token():06d}"


def look(page: Page, name: str) -> None:
    """Check the page with axe, and keep its picture for review."""
    assert_accessible(page)
    for device, size in (("phone", PHONE), ("desktop", DESKTOP)):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.screenshot(path=ARTIFACTS / f"two-factor-{name}-{device}-{scheme}.png", full_page=True)


def turn_on(page: Page, person: Person) -> tuple[str, list[str]]:
    """Turn on the second factor of the logged-in user. Return the secret and the recovery codes."""
    page.goto("/account/two-factor/")
    page.get_by_role("button", name="Set up").click()
    secret = page.locator("#secret").inner_text()
    confirm(page, person, code_of(secret))
    expect(page.locator("h1")).to_have_text("Your recovery codes")
    return secret, page.locator("#codes code").all_inner_texts()


def test_an_administrator_turns_it_on_and_logs_in_with_codes(
    still: Page, stack: Stack, administrator: Person, backing: Backing
):
    page = still
    ARTIFACTS.mkdir(exist_ok=True)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    give_password_at(page, administrator)
    page.wait_for_url("**/account/")
    page.get_by_role("link", name="Two-factor authentication").click()
    look(page, "off")
    page.get_by_role("button", name="Set up").click()
    secret = page.locator("#secret").inner_text()
    picture = page.get_by_role("img", name="QR code of the secret below")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 100")
    look(page, "setup")
    confirm(page, administrator, code_of(secret))
    codes = page.locator("#codes code").all_inner_texts()
    assert len(set(codes)) == 10
    look(page, "codes")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(codes)
    page.get_by_role("link", name="I have saved the codes").click()
    expect(page.locator(".facts")).to_contain_text("10")
    look(page, "on")
    log_out(page)

    # The administration's own login, with the code that comes next: the first one is used.
    give_password_at(page, administrator, "/admin/")
    expect(page.locator("h1")).to_have_text("Enter your code")
    look(page, "login")
    page.goto("/admin/")
    expect(page.locator("#login-form")).to_be_visible()
    give_password_at(page, administrator, "/admin/")
    give_code(page, "000000")
    expect(page.locator(".error-summary")).to_contain_text("This code is wrong")
    look(page, "wrong")
    eventually(lambda: "/admin/" in page.url or give_code(page, code_of(secret, ahead=1)), what="the wait is over")
    expect(page.get_by_role("heading", name="Administration")).to_be_visible()
    page.screenshot(path=ARTIFACTS / "two-factor-administration.png")
    page.get_by_role("link", name="Two-factor").click()
    expect(page.get_by_role("link", name="Create new recovery codes")).to_be_visible()
    log_out(page)

    # Without the phone: each recovery code once.
    give_password_at(page, administrator)
    give_code(page, codes[0])
    page.wait_for_url("**/account/")
    log_out(page)
    give_password_at(page, administrator)
    give_code(page, codes[0])
    expect(page.locator(".error-summary")).to_contain_text("already used")
    stack.manage("reset_two_factor", administrator.user_id)
    give_password_at(page, administrator)
    page.wait_for_url("**/account/")
    expect(page.locator(".facts")).to_contain_text("Off")
    page.goto("/account/two-factor/")
    turn_on(page, administrator)
    page.goto("/account/two-factor/off/")
    look(page, "turn-off")
    for log in stack.logs().values():
        assert secret.replace(" ", "") not in log
        assert not any(code in log or code.replace("-", "") in log for code in codes)


def test_the_api_refuses_administrators_from_a_session_without_the_code(
    page: Page, stack: Stack, administrator: Person
):
    def sign_up_an_administrator(cookies: dict[str, str]) -> int:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        form = new_person().form | {"role": "ROLE_ADMIN"}
        headers |= {"X_CSRFToken": cookies["csrftoken"], "Origin": stack.base_url}
        return request(stack, "POST", "/user", form, **headers).status

    from_before = session_of(stack, administrator)
    assert sign_up_an_administrator(from_before) == 202
    give_password_at(page, administrator)
    page.wait_for_url("**/account/")
    turn_on(page, administrator)
    assert sign_up_an_administrator(from_before) == 403
    verified = {cookie["name"]: cookie["value"] for cookie in page.context.cookies()}
    assert sign_up_an_administrator(verified) == 202
