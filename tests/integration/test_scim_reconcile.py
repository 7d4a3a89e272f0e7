"""`manage.py reconcile` and a SCIM server: the findings, and the repairs."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from eventbus.messages import Incoming
from scimsvc import account_claims, reconcile
from scimsvc.errors import ScimUnavailableError
from scimsvc.models import ScimAccount
from scimsvc.provisioning import Provisioning
from scimsvc.reconcile import ScimReconcileHandler
from scimsvc.server import ScimServer
from tests.integration.test_scim import SLOWEST, message, new, new_handler, record, removal, row, time_left
from tests.servers import ScimTestServer
from tests.servers.scim import TOKEN, USER

pytestmark = pytest.mark.django_db(databases=["scim"])


@pytest.fixture(scope="module")
def process() -> Iterator[ScimTestServer]:
    with ScimTestServer() as running:
        yield running


@pytest.fixture(scope="module")
def provisioning(process: ScimTestServer) -> Iterator[Provisioning]:
    provisioning = Provisioning("crm", ScimServer(process.url, TOKEN))
    yield provisioning
    provisioning.close()


@pytest.fixture
def scim(process: ScimTestServer, provisioning: Provisioning) -> ScimTestServer:
    """A server with the users kim (1) and lee (2), and the tombstone of park (3)."""
    process.reset()
    handler = new_handler(provisioning)
    handler([new(1), new(2, userId="lee", email="lee@example.org"), removal(3)])
    return process


@pytest.fixture
def handler(scim: ScimTestServer, provisioning: Provisioning) -> ScimReconcileHandler:
    handler = ScimReconcileHandler("crm")
    handler.connection.provisioning = provisioning
    return handler


KIM, LEE = record(1), record(2, userId="lee", email="lee@example.org")


def page(*records: dict[str, Any], heal: bool = False, **more: Any) -> Incoming:
    soon = timezone.now() + timedelta(seconds=60)
    event = {"runId": str(UUID(int=99)), "page": 1, "expiresAt": soon.isoformat(), "services": ["crm"], "heal": heal}
    return message("user.reconcile.req", event | {"records": records, "owners": {}} | more)


def findings(handler: ScimReconcileHandler, asked: Incoming) -> list[tuple[Any, ...]]:
    """The kind, the userId, whether it is healed, and the fields of each finding."""
    handled = handler([asked])
    assert not handled.rejected
    [answer] = handled.answers
    body = json.loads(answer.value)
    assert (answer.topic, body["service"], body["more"]) == ("user.reconcile.res", "crm", False)
    return [
        (each["kind"], each["userId"], each.get("healed", False), *each.get("fields", ())) for each in body["findings"]
    ]


def delete(scim: ScimTestServer, user_name: str) -> None:
    [scim_id] = [user["id"] for user in scim.users if user["userName"] == user_name]
    scim.scim("DELETE", f"/Users/{scim_id}")


def test_a_server_that_agrees_with_auth_has_no_findings(handler, scim):
    before = scim.users
    assert findings(handler, page(KIM, LEE, heal=True)) == []
    assert scim.users == before


def test_users_changed_or_deleted_at_the_server_are_found_and_healed(handler, scim):
    delete(scim, "kim")
    scim.scim("PATCH", f"/Users/{row(2).scim_id}", patch(displayName="Changed", active=False))
    asked = page(KIM, LEE)
    assert findings(handler, asked) == [("missing", "kim", False), ("different", "lee", False, "active", "userName")]
    assert [user["displayName"] for user in scim.users] == ["Changed"]
    healed = page(KIM, LEE, heal=True, page=2)
    assert findings(handler, healed) == [("missing", "kim", True), ("different", "lee", True, "active", "userName")]
    assert sorted((user["displayName"], user["active"]) for user in scim.users) == [("Kim", True), ("Kim", True)]
    assert findings(handler, page(KIM, LEE, page=3)) == []


def patch(**values: Any) -> dict[str, Any]:
    operations = [{"op": "replace", "path": path, "value": value} for path, value in values.items()]
    return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations}


def test_a_newer_record_is_brought_to_the_server_and_an_older_one_is_not(handler, scim):
    newer = KIM | {"version": 4, "userName": "Newer"}
    assert findings(handler, page(newer, LEE, heal=True)) == [("different", "kim", True, "userName", "version")]
    assert row(1).version == 4
    assert findings(handler, page(KIM, LEE, heal=True, page=2)) == [("newer", "kim", False)]
    assert [user["displayName"] for user in scim.users if user["userName"] == "kim"] == ["Newer"]


def test_a_user_in_the_way_is_a_conflict(handler, scim):
    scim.add(userName="park")
    missing = record(4, userId="park", email="park@example.org")
    assert findings(handler, page(KIM, LEE, missing, heal=True)) == [("conflicting", "park", False)]


def test_removed_and_superfluous_users_are_found_and_only_removed_ones_are_deleted(handler, scim):
    asked = page(heal=True, removed=[str(UUID(int=1))])
    assert findings(handler, asked) == [("removed", "kim", True), ("superfluous", "lee", False)]
    assert [user["userName"] for user in scim.users] == ["lee"]
    assert row(1).removed_at is not None


@pytest.mark.parametrize("status", [405, 409, 500])
def test_a_user_whom_the_server_does_not_delete_is_reported_as_not_healed(handler, scim, status):
    scim.misbehave("DELETE", how="status", status=status)
    asked = page(heal=True, removed=[str(UUID(int=1)), str(UUID(int=2))])
    assert findings(handler, asked) == [("removed", "kim", False), ("removed", "lee", True)]
    assert row(1).removed_at is None


def test_a_name_at_the_server_that_no_message_can_hold_is_escaped(handler, scim):
    user = {"schemas": [USER], "id": row(1).scim_id, "userName": "\ud83d\x1b", "externalId": str(UUID(int=1))}
    answer = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": 1, "Resources": [user]}
    scim.misbehave("GET", how="json", content=answer, about=str(UUID(int=1)))
    assert findings(handler, page(LEE)) == [("superfluous", r"\ud83d\x1b", False)]


def test_a_removed_account_is_never_restored(handler, scim):
    again = record(3, userId="park", email="park@example.org")
    assert findings(handler, page(KIM, LEE, again, heal=True)) == [("revived", "park", False)]
    assert "park" not in [user["userName"] for user in scim.users]


def test_an_interrupted_page_is_resumed_where_it_stopped(handler, scim, monkeypatch):
    asked = page(KIM, LEE)
    scim.misbehave("GET", how="status", status=503, about=str(UUID(int=2)))
    with pytest.raises(ScimUnavailableError):
        handler([asked])
    before = len(scim.requests)
    assert findings(handler, asked) == []
    assert len(scim.requests) == before + 1
    monkeypatch.setattr(reconcile, "ATTEMPT", -1.0)
    with pytest.raises(reconcile.TransientError, match="crm is slow: 0 users of the page are compared"):
        handler([page(KIM, page=2)])


def test_a_page_that_expired_or_is_for_others_is_ignored(handler, scim):
    before = len(scim.requests)
    past = (timezone.now() - timedelta(seconds=1)).isoformat()
    handled = handler([page(KIM, expiresAt=past), page(KIM, services=["chat"])])
    assert (handled.answers, len(scim.requests)) == ([], before)


def test_the_accounts_of_other_servers_are_ignored(handler):
    ScimAccount.objects.create(server="wiki", owner_signup_id=UUID(int=8), scim_id="8", version=1)
    assert findings(handler, page(KIM, LEE)) == []


def test_a_comparison_and_the_heal_after_it_share_one_limit(handler, scim, monkeypatch):
    monkeypatch.setattr(account_claims, "ACCOUNT_WITHIN", 2.0)
    delete(scim, "kim")
    # A lookup for the comparison, and a lookup and a POST to heal. The POST is ended.
    scim.misbehave("GET", how="slow", seconds=0.3, times=2)
    scim.misbehave("POST", how="slow", seconds=SLOWEST)
    begun = time.monotonic()
    assert findings(handler, page(KIM, heal=True, owners=None)) == [("missing", "kim", False)]
    assert time.monotonic() - begun < SLOWEST
    assert time_left(row(1).last_answer) <= 2.0 - 2 * 0.3
