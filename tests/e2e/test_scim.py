"""SCIM servers over the whole installation: their lights on the page, and what they have afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, expect

from tests.client import SERVICES, sign_up
from tests.conftest import ARTIFACTS, new_person, new_stack
from tests.e2e.test_page import lights, log_in, sign_up_in
from tests.plugin import Backing
from tests.servers import ScimTestServer
from tests.servers.scim import TOKEN
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ScimTestServer]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(ScimTestServer()) for name in ("crm", "wiki")}


@pytest.fixture(scope="module")
def provisioned(backing: Backing, servers: dict[str, ScimTestServer]) -> Iterator[Stack]:
    """An installation whose settings name two SCIM servers; nothing else of it is different."""
    urls = ",".join(f"{name}={server.url}" for name, server in servers.items())
    tokens = ",".join(f"{name}={TOKEN}" for name in servers)
    with new_stack(backing, SCIM_SERVERS=urls, SCIM_TOKENS=tokens) as stack:
        scim = stack.add_scim()
        scim.start()
        yield stack


def user_names(server: ScimTestServer) -> list[str]:
    return [user["userName"] for user in server.users]


def test_each_server_has_its_light_on_the_page_and_one_that_is_down_delays_no_other(
    provisioned: Stack, servers: dict[str, ScimTestServer], browser: Browser
) -> None:
    person = new_person()
    page = browser.new_page(base_url=provisioned.base_url, locale="en-US")
    servers["wiki"].stop()
    try:
        sign_up_in(page, person)
        done = dict.fromkeys((*SERVICES, "crm"), "SUCCESS")
        eventually(lambda: lights(page) == done | {"wiki": "PENDING"}, what="all but the stopped server are green")
        page.screenshot(path=ARTIFACTS / "scim-servers.png")
        assert user_names(servers["crm"]) == [person.user_id]
    finally:
        servers["wiki"].start()
    page.wait_for_url("**/login/**")
    assert user_names(servers["wiki"]) == [person.user_id]
    page.close()
    logs = "".join(provisioned.logs().values())
    assert "wiki can't be provisioned: lookup: no answer: ConnectError" in logs
    assert "crm can't be provisioned" not in logs
    assert TOKEN not in logs
    assert person.email not in provisioned.logs()["scim"]


def test_a_change_and_a_removal_reach_the_servers(
    provisioned: Stack, servers: dict[str, ScimTestServer], browser: Browser
) -> None:
    person = new_person()
    assert sign_up(provisioned, person.form)[-1].statuses["crm"] == "SUCCESS"
    page = browser.new_page(base_url=provisioned.base_url, locale="en-US")
    page.goto("/login/")
    log_in(page, person)
    page.locator("[name=user_name]").fill("Renamed")
    page.locator("#account-form [type=submit]").last.click()
    expect(page.locator("#lights-panel")).to_have_attribute("data-outcome", "green")
    assert {"crm", "wiki"} < lights(page).keys()
    page.close()
    for server in servers.values():
        assert [user["displayName"] for user in server.users if user["userName"] == person.user_id] == ["Renamed"]
    provisioned.manage("forget", "--yes", person.user_id)
    for server in servers.values():
        eventually(lambda server=server: person.user_id not in user_names(server), what="the user is deleted")


def test_the_admin_lists_the_accounts_at_the_servers(provisioned: Stack, browser: Browser) -> None:
    boss = new_person()
    provisioned.manage("make_admin", ADMIN_USER_ID=boss.user_id, ADMIN_EMAIL=boss.email, ADMIN_PASSWORD=boss.password)
    page = browser.new_page(base_url=provisioned.base_url, locale="en-US")
    page.goto("/admin/scimsvc/scimaccount/")
    page.locator("[name=username]").fill(boss.user_id)
    page.locator("[name=password]").fill(boss.password)
    page.locator("#login-form [type=submit]").click()
    rows = page.locator("#result_list tbody tr")
    expect(rows.filter(has_text="crm").first).to_contain_text("created")
    expect(page.locator(".object-tools .addlink, #result_list input")).to_have_count(0)
    page.screenshot(path=ARTIFACTS / "scim-accounts.png")
    page.close()
