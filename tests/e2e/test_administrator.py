"""An administrator resolves a failed sign-up, in a real browser on a whole installation."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.client import produce, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN, post, requested, row, settled, state, statuses
from tests.e2e.test_dead_letters import letter_of, refusing
from tests.e2e.test_page import keep_picture
from tests.plugin import Backing
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "chromium")

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def administrator(stack: Stack) -> Person:
    staff = new_person()
    stack.manage(
        "createsuperuser", "--noinput", "--user_id", staff.user_id, "--email", staff.email,
        DJANGO_SUPERUSER_PASSWORD=staff.password,
    )  # fmt: skip
    return staff


@pytest.fixture(params=["light", "dark"])
def desk(
    request: pytest.FixtureRequest, browser: Browser, stack: Stack, administrator: Person
) -> Iterator[tuple[Page, str]]:
    """The administration after a login, in each theme."""
    size = {"width": 1440, "height": 900}
    context = browser.new_context(base_url=stack.base_url, locale="en-US", color_scheme=request.param, viewport=size)
    page = context.new_page()
    page.goto("/admin/")
    page.get_by_label("user ID").fill(administrator.user_id)
    page.get_by_label("Password").fill(administrator.password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Administration")).to_be_visible()
    yield page, request.param
    context.close()


def known_at_chat(stack: Stack, person: Person) -> None:
    produce(stack, "user.newUser.req", requested(person, services=["chat"]), key=person.user_id)
    eventually(lambda: row(person) in stack.rows("chat"))


def picture(page: Page, name: str, theme: str, backing: Backing) -> None:
    if backing.stack == "real":
        keep_picture(page, f"{name}-{theme}.png")


def test_the_index_of_the_admin_leads_to_a_sign_ups_timeline_and_its_replay(
    desk: tuple[Page, str], stack: Stack, person: Person, backing: Backing
):
    page, theme = desk
    known_at_chat(stack, person)
    for _ in range(3):
        sign_up(stack, new_person().form)
    with refusing(stack, (poisoned := new_person()).user_id):
        waiting = post(stack, poisoned.form)
        eventually(lambda: letter_of(stack, poisoned), what="the letter is listed")
        red = settled(stack, post(stack, person.form))
        assert statuses(red) == ALL_GREEN | {"chat": "FAIL"}
        settled(stack, post(stack, new_person().form | {"userId": person.user_id}))
        page.goto("/admin/")
        attention = page.get_by_role("region", name="Needs attention")
        expect(attention).to_contain_text("Dead letters waiting")
        picture(page, "admin-index", theme, backing)
        attention.get_by_role("link", name=re.compile("Refused by")).click()
        expect(page.locator("#result_list")).to_contain_text(person.user_id)

        page.get_by_role("link", name=re.compile(r"chat: duplicate: userId \(\d+\)")).click()
        expect(page.locator("#result_list")).to_contain_text("✕ chat")
        expect(page.locator("#changelist-filter")).to_contain_text(re.compile(r"auth: duplicate: userId \(\d+\)"))
        picture(page, "admin-groups", theme, backing)
        page.goto("/admin/authsvc/eventtransaction/")
        picture(page, "admin-signups", theme, backing)

        page.goto(f"/admin/authsvc/eventtransaction/{waiting.json['signupId']}/change/")
        timeline = page.get_by_role("region", name="Timeline")
        for words in (
            "Asked every service",
            "customer answered SUCCESS",
            "chat could not handle it",
            "user.newUser.req[",
        ):
            expect(timeline).to_contain_text(words)
        picture(page, "admin-timeline", theme, backing)
    page.get_by_label("Services to ask:").select_option("chat")
    page.get_by_role("button", name="Replay").click()
    expect(page.locator(".messagelist")).to_contain_text("1 sign-up sent again")
    eventually(lambda: statuses(state(stack, waiting)) == ALL_GREEN)
    page.goto(f"/admin/authsvc/eventtransaction/{waiting.json['signupId']}/change/")
    for words in ("Replayed to chat", "Asked chat", "chat answered SUCCESS", "Complete: every service has answered"):
        expect(page.get_by_role("region", name="Timeline")).to_contain_text(words)


def test_explain_prints_the_same_timeline(stack: Stack, person: Person):
    answer = post(stack, person.form)
    settled(stack, answer)
    told = stack.manage("explain", person.user_id).stdout
    signup_id = answer.json["signupId"]
    for words in (
        signup_id, signup_id.replace("-", ""), "Asked every service", "user.newUser.req[", "chat answered SUCCESS",
        "user.newUser.res[", "Complete: every service has answered", "UTC",
    ):  # fmt: skip
        assert words in told
    assert told == stack.manage("explain", signup_id).stdout
    nobody = stack.manage("explain", "nobody-at-all", check=False)
    assert nobody.returncode == 1
    assert "There is no sign-up" in nobody.stderr
