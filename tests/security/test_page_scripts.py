"""Pages treat server messages as data, and leave no secret in the browser."""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.client import SERVICES
from tests.conftest import Person
from tests.e2e.test_odd_browsers import STATUS, mute
from tests.e2e.test_page import lights, log_in, sign_up_in
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "chromium")

KEPT = "JSON.stringify([{...localStorage}, {...sessionStorage}])"


def test_the_browser_stores_only_the_lights_and_forgets_them_at_logout(page: Page, person: Person):
    sign_up_in(page, person)
    page.wait_for_url("**/login/**")
    local, session = json.loads(page.evaluate(KEPT))
    assert (local, list(session)) == ({}, ["signupSync.shown"])
    assert all(set(each) <= {*SERVICES, "version"} for each in json.loads(session["signupSync.shown"]))
    log_in(page, person)
    page.goto("/account/")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login/")
    eventually(lambda: json.loads(page.evaluate(KEPT)) == [{}, {}], what="the browser has forgotten the lights")


def test_no_key_of_a_socket_message_changes_javascripts_prototypes(page: Page, person: Person):
    # Only the test's message reaches the page; the state of the complete sign-up would make it move on.
    sockets = mute(page)
    page.route(STATUS, lambda route: route.abort())
    sign_up_in(page, person)
    eventually(lambda: sockets, what="the socket is open")
    expect(page.locator("[data-service=auth]")).to_have_attribute("data-status", "SUCCESS")
    signup_id = page.evaluate("JSON.parse(document.getElementById('signup-data').textContent).page.signupId")
    state = json.dumps({"signupId": signup_id, "version": 9, "complete": False, "took": {}})
    shown = page.evaluate("JSON.parse(document.getElementById('signup-data').textContent).message.shown")
    drawn = [("auth", "SUCCESS"), ("__proto__", "FAIL")]
    shown["lights"] = [
        {"service": name, "name": name, "status": status, "word": name, "took": ""} for name, status in drawn
    ]
    services = '{"auth": {"status": "SUCCESS"}, "__proto__": {"status": "FAIL", "reason": "__proto__"}}'
    more = f', "shown": {json.dumps(shown)}, "services": {services}, "__proto__": {{"polluted": 1}}}}'
    sockets[-1].send(state[:-1] + more)
    expect(page.locator('[data-service="__proto__"]')).to_have_attribute("data-status", "FAIL")
    assert lights(page) == {"auth": "SUCCESS", "__proto__": "FAIL"}
    assert page.evaluate("[({}).polluted, ({}).status, ({}).auth, ({}).reason]") == [None] * 4
