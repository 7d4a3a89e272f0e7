"""SCIM servers over the whole installation: their lights on the page, and what they have afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, expect

from tests.client import SERVICES, sign_up
from tests.conftest import ARTIFACTS, new_person, new_stack
from tests.e2e.on_call import OnCall, about
from tests.e2e.test_page import lights, log_in, sign_up_in
from tests.e2e.test_restore import reconcile
from tests.operations_guide import commands_after
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
    """An installation whose settings name two SCIM servers; it is otherwise unchanged."""
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
    assert list(lights(page)) == [*SERVICES, "crm", "wiki"], "as on the sign-up page"
    page.screenshot(path=ARTIFACTS / "scim-account.png")
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


def test_a_database_of_the_scim_services_that_was_restored_from_a_backup_is_healed(
    backing: Backing, provisioned: Stack, servers: dict[str, ScimTestServer]
) -> None:
    if not backing.postgresql or backing.stack == "embedded":
        pytest.skip("docs/operations.md describes backups of PostgreSQL: --stack=real tests them")
    on_call = OnCall(provisioned, backing.postgresql)
    stays, leaves, comes = (new_person() for _ in range(3))
    for person in (stays, leaves):
        assert set(sign_up(provisioned, person.form)[-1].statuses.values()) == {"SUCCESS"}
    for line in about(commands_after("## Back up"), "scim"):
        on_call.types(line)
    assert set(sign_up(provisioned, comes.form)[-1].statuses.values()) == {"SUCCESS"}
    provisioned.manage("forget", "--yes", leaves.user_id)
    for server in servers.values():
        eventually(lambda server=server: leaves.user_id not in user_names(server), what="the user is deleted")

    *restore, _ = about(commands_after("## Restore a participant"), "scim")
    for line in restore:
        on_call.types(line)

    code, _, findings = reconcile(provisioned, "--heal")
    # The servers' users are correct; only the versions and the tombstone are lost.
    lost = {(name, "different", comes.user_id) for name in servers} | {(name, "removed", "") for name in servers}
    assert (code, set(findings)) == (0, lost)
    assert reconcile(provisioned) == (0, "", [])
    for server in servers.values():
        assert {stays.user_id, comes.user_id} <= set(user_names(server))
        assert leaves.user_id not in user_names(server)


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
