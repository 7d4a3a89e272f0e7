"""The operator's pages in a real browser, over the whole installation."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.client import SERVICES, sign_up
from tests.conftest import ARTIFACTS, Person, new_person
from tests.e2e.test_page import give_password
from tests.plugin import Backing
from tests.stack import Stack

pytestmark = [pytest.mark.needs("application", "chromium")]

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
OPERATOR = Person("operator", "operator@example.org", "", "correct horse battery 9")
# On the real stack, auth's instances are web processes, too.
CONSUMERS = tuple(f"consumer of {service}" for service in SERVICES)
ROLES = ("collector of dead letters", *CONSUMERS, "relay", "web")


@pytest.fixture(scope="module")
def superuser(stack: Stack) -> Person:
    account = {"ADMIN_USER_ID": OPERATOR.user_id, "ADMIN_EMAIL": OPERATOR.email, "ADMIN_PASSWORD": OPERATOR.password}
    stack.manage("make_admin", **account)
    return OPERATOR


@pytest.fixture(params=["light", "dark"])
def operator(browser: Browser, stack: Stack, superuser: Person, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab of the administration in either theme. Script errors and violations of the site's policy fail the test."""
    context = browser.new_context(base_url=stack.base_url, locale="en-US", color_scheme=request.param)
    tab = context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda said: errors.append(said.text) if "Content Security" in said.text else None)
    tab.goto("/admin/login/")
    give_password(tab, superuser)
    tab.theme = request.param
    yield tab
    context.close()
    assert errors == []


def keep_picture(page: Page, name: str) -> None:
    """Keep a picture for review and, if UPDATE_PICTURES is set, for the README."""
    ARTIFACTS.mkdir(exist_ok=True)
    file = f"{name}-{page.theme}.png"
    page.screenshot(path=ARTIFACTS / file, full_page=True, animations="disabled")
    if os.environ.get("UPDATE_PICTURES"):
        shutil.copy(ARTIFACTS / file, PICTURES / file)


def test_traffic_is_drawn_as_it_comes_without_a_reload(operator: Page, stack: Stack):
    operator.get_by_role("navigation", name="Operation").get_by_role("link", name="Traffic").click()
    traffic = operator.locator("#traffic")
    expect(traffic).to_have_attribute("data-drawn", re.compile("."))
    loads: list[str] = []
    operator.on("framenavigated", lambda frame: loads.append(frame.url))
    people = [new_person() for _ in range(4)]
    for form in [*(each.form for each in people), new_person().form | {"userId": people[0].user_id}]:
        sign_up(stack, form)
    for service in SERVICES:
        bars = traffic.locator(f"[data-service={service}]")
        expect(bars.locator("rect.green").first).to_be_visible()
        expect(bars.locator("rect.red").first).to_be_visible()
    for chart in ("took", "lag"):
        expect(traffic.locator(f"[data-chart={chart}] path.line0")).to_have_attribute("d", re.compile("^M"))
    expect(traffic.locator("[data-chart=begun] rect").first).to_be_visible()
    assert loads == []
    keep_picture(operator, "traffic")


def test_the_days_have_a_chart_each_too(operator: Page):
    operator.goto("/admin/authsvc/trafficminute/")
    operator.get_by_role("link", name="Last 24 hours").click()
    expect(operator.locator("[data-chart=begun]")).to_contain_text("per 10 minutes")
    expect(operator.locator("#traffic")).to_have_attribute("data-drawn", re.compile("."))
    expect(operator.locator("#traffic-state")).to_have_text("")


def test_a_lost_stream_is_reported_and_resumed(operator: Page, stack: Stack):
    if operator.theme == "dark":
        pytest.skip("once is enough: the process is stopped")
    operator.goto("/admin/authsvc/trafficminute/")
    expect(operator.locator("#traffic")).to_have_attribute("data-drawn", re.compile("."))
    web, written = stack.roles["web"], len(stack.roles["web"].log())
    try:
        assert web.stop() == 0, "it ends within 5 s, or with 1"
        assert "shutdown exceeded" not in web.log()[written:], "the stream ended before it was cancelled"
        expect(operator.locator("#traffic-state")).to_contain_text("The connection is lost")
        if stack.caddy:
            # The browser abandons a stream when the gateway answers in place of a process.
            with operator.expect_response(lambda answer: answer.status == 503):
                pass
            expect(operator.locator("#traffic-state")).to_contain_text("The connection is lost")
    finally:
        web.start()
    expect(operator.locator("#traffic-state")).to_have_text("")


def test_topics_and_the_messages_of_one_person(operator: Page, stack: Stack, person: Person, backing: Backing):
    sign_up(stack, person.form | {"userName": "<script>alert(1)</script>"})
    operator.get_by_role("navigation", name="Operation").get_by_role("link", name="Topics").click()
    expect(operator.get_by_text("embedded broker can't list groups")).to_have_count(int(backing.stack == "embedded"))
    keep_picture(operator, "topics")
    operator.get_by_role("link", name="user.newUser.req", exact=True).click()
    operator.get_by_label("Key").fill(person.user_id)
    operator.get_by_role("button", name="Show").click()
    message = operator.locator(".operation-message")
    expect(message).to_have_count(1)
    expect(message).to_have_attribute("open", "")
    expect(message).to_contain_text("traceparent")
    expect(message.locator("pre")).to_contain_text('"userName": "<script>alert(1)</script>"')
    assert person.password not in operator.content()
    keep_picture(operator, "messages")


def rows_of(page: Page, role: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=role, exact=True))


def test_every_process_is_shown_and_one_that_died_too(operator: Page, stack: Stack):
    operator.get_by_role("navigation", name="Operation").get_by_role("link", name="Instances").click()
    for role in ROLES:
        expect(rows_of(operator, role).filter(has_text="in rotation").first).to_be_visible()
    keep_picture(operator, "instances")
    collector = stack.roles["dead-letters"]
    collector.kill()
    rows = rows_of(operator, "collector of dead letters")
    expect(rows.filter(has_text="in rotation")).to_have_count(0)
    expect(rows.filter(has_text="gone").first).to_be_visible()
    expect(operator.get_by_text("No process is running for:")).to_be_visible()
    collector.start()
    expect(operator.get_by_text("No process is running for:")).to_be_hidden()
