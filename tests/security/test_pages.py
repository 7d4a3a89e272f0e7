"""What a page does with what it is told, and what it leaves in the browser."""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Person
from tests.e2e.test_page import fill, lights, log_in, sign_up_in, submit
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "chromium")

KEPT = "JSON.stringify([{...localStorage}, {...sessionStorage}])"


def test_the_browser_keeps_the_lights_alone_and_forgets_them_at_logout(page: Page, person: Person):
    sign_up_in(page, person)
    page.wait_for_url("**/login/**")
    local, session = json.loads(page.evaluate(KEPT))
    assert (local, list(session)) == ({}, ["signupSync.shown"])
    assert all(set(each) <= {"auth", "chat", "customer", "version"} for each in json.loads(session["signupSync.shown"]))
    log_in(page, person)
    page.goto("/account/")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login/")
    eventually(lambda: json.loads(page.evaluate(KEPT)) == [{}, {}], what="the browser has forgotten the lights")


def test_no_name_in_what_a_socket_says_reaches_every_object(page: Page, person: Person):
    state = {"signupId": "x", "version": 9, "complete": False, "took": {}}
    services = '{"auth": {"status": "SUCCESS"}, "__proto__": {"status": "FAIL", "reason": "__proto__"}}'
    said = json.dumps(state)[:-1] + f', "services": {services}, "__proto__": {{"polluted": 1}}}}'
    page.route_web_socket("**/ws/signup/**", lambda socket: socket.send(said))
    page.goto("/signup/")
    fill(page, person)
    submit(page)
    expect(page.locator('[data-service="__proto__"] .light-word')).not_to_be_empty()
    assert lights(page)["auth"] == "SUCCESS"
    assert page.evaluate("[({}).polluted, ({}).status, ({}).auth, Object.prototype.reason]") == [None] * 4
