"""The SCIM services against a real SCIM server, which also misbehaves: what the server has afterwards, the answers, and
what is stored."""

import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import LazySettings
from django.utils import timezone

from eventbus.messages import HandledBatch, Incoming
from participant.export import rows_held
from runtime.errors import TransientError
from scimsvc import account_claims, handlers, server
from scimsvc.errors import LostClaimError, ScimError, ScimUnavailableError, UnfinishedError
from scimsvc.handlers import ScimHandler
from scimsvc.models import LAST_ANSWER_MAX, ScimAccount
from scimsvc.provisioning import Provisioning
from scimsvc.server import ScimServer
from tests.servers import ScimTestServer, free_port
from tests.servers.process import LOOPBACK
from tests.servers.scim import TOKEN, USER

pytestmark = pytest.mark.django_db(databases=["scim"])

GREEN = ("SUCCESS", None)
SAME_USER_ID = ("FAIL", "duplicate: userId")
SAME_EMAIL = ("FAIL", "duplicate: email")
IS_REMOVED = ("FAIL", "removed")
KIM = UUID(int=1)


@pytest.fixture(scope="module")
def process() -> Iterator[ScimTestServer]:
    with ScimTestServer() as running:
        yield running


@pytest.fixture
def scim(process: ScimTestServer, settings: LazySettings) -> ScimTestServer:
    process.reset()
    settings.SCIM_SERVERS, settings.SCIM_TOKENS = {"crm": process.url}, {"crm": TOKEN}
    return process


@pytest.fixture(scope="module")
def provisioning(process: ScimTestServer) -> Iterator[Provisioning]:
    """One for all tests, because an HTTP client takes a while to load its certificates."""
    provisioning = Provisioning("crm", ScimServer(process.url, TOKEN))
    yield provisioning
    provisioning.close()


@pytest.fixture
def handler(scim: ScimTestServer, provisioning: Provisioning) -> ScimHandler:
    return new_handler(provisioning)


def new_handler(provisioning: Provisioning) -> ScimHandler:
    handler = ScimHandler("crm")
    handler.connection.provisioning = provisioning
    return handler


def record(owner: int, **changed: Any) -> dict[str, Any]:
    fields = {
        "ownerSignupId": str(UUID(int=owner)),
        "userId": "kim",
        "email": "kim@example.org",
        "userName": "Kim",
        "role": "ROLE_USER",
        "occurredAt": "2025-01-01T00:00:00Z",
        "attempt": 1,
        "version": 1,
        "active": True,
    }
    return fields | changed


_offsets = iter(range(1_000_000))


def message(topic: str, event: dict[str, Any]) -> Incoming:
    value = json.dumps(event).encode()
    return Incoming(topic=topic, partition=0, offset=next(_offsets), key=b"kim", value=value)


def new(signup: int = 1, *, owner: int | None = None, **changed: Any) -> Incoming:
    event = record(signup if owner is None else owner, **changed) | {"signupId": str(UUID(int=signup))}
    return message("user.newUser.req", event)


def change(owner: int = 1, *, version: int = 2, **changed: Any) -> Incoming:
    event = record(owner, version=version, **changed) | {"changeId": str(UUID(int=1000 * owner + version))}
    return message("user.changeUser.req", event)


def removal(owner: int = 1, *, version: int = 9) -> Incoming:
    event = {"changeId": str(UUID(int=1000 * owner + version)), "ownerSignupId": str(UUID(int=owner))}
    more = {"userId": "", "version": version, "occurredAt": "2025-01-01T00:00:00Z", "attempt": 1}
    return message("user.removeUser.req", event | more)


def bodies(handled: HandledBatch) -> list[dict[str, Any]]:
    return [json.loads(outgoing.value) for outgoing in handled.answers]


def verdicts(handled: HandledBatch) -> list[tuple[str, str | None]]:
    assert not handled.rejected
    return [(body["status"], body.get("reason")) for body in bodies(handled)]


def row(owner: int = 1) -> ScimAccount:
    return ScimAccount.objects.get(server="crm", owner_signup_id=UUID(int=owner))


def names(scim: ScimTestServer) -> list[tuple[str, str]]:
    return sorted((user["userName"], user["emails"][0]["value"]) for user in scim.users)


# --- New users -----------------------------------------------------------------------------------------------------


def test_a_new_user_is_created_and_only_ids_are_stored(handler, scim):
    handled = handler([new(7)])
    assert verdicts(handled) == [GREEN]
    [body] = bodies(handled)
    assert (body["service"], body["signupId"]) == ("crm", str(UUID(int=7)))
    assert handled.answers[0].topic == "user.newUser.res"
    [user] = scim.users
    assert (user["externalId"], user["userName"], user["displayName"]) == (str(UUID(int=7)), "kim", "Kim")
    assert (user["emails"][0]["value"], user["roles"][0]["value"], user["active"]) == (
        "kim@example.org",
        "ROLE_USER",
        True,
    )
    stored = ScimAccount.objects.values().get()
    assert "kim" not in str(stored).lower()
    assert (stored["scim_id"], stored["version"], stored["last_answer"]) == (user["id"], 1, "created")


def test_a_user_is_looked_up_before_it_is_created(handler, scim):
    handler([new()])
    assert scim.requests == ["GET /Users", "POST /Users"]


def test_a_user_that_the_server_has_for_this_owner_is_ours(handler, scim):
    scim.add(userName="kim", externalId=str(KIM))
    assert verdicts(handler([new()])) == [GREEN]
    assert names(scim) == [("kim", "kim@example.org")]
    assert "POST /Users" not in scim.requests


def test_a_redelivery_to_another_process_gets_the_same_answer_and_creates_nothing(handler, scim, provisioning):
    batch = [new(1), new(2, owner=1), new(3, userId="lee", email="lee@example.org")]
    first = verdicts(handler(batch))
    assert first == [GREEN, SAME_USER_ID, GREEN]
    assert verdicts(new_handler(provisioning)(batch)) == first
    assert names(scim) == [("kim", "kim@example.org"), ("lee", "lee@example.org")]


def test_a_strangers_sign_up_that_comes_first_does_not_turn_the_owner_red(handler):
    assert verdicts(handler([new(2, owner=1), new(1)])) == [GREEN, GREEN]


def test_a_request_for_other_services_is_neither_sent_nor_answered(handler, scim):
    handled = handler([new(services=["chat"])])
    assert (handled.answers, handled.rejected) == ([], [])
    assert scim.requests == []


def test_a_user_of_the_server_itself_is_a_duplicate_and_stays_as_it_is(handler, scim):
    scim.add(userName="KIM", displayName="Made by hand")
    handled = handler([new()])
    assert verdicts(handled) == [SAME_USER_ID]
    assert "heldBy" not in bodies(handled)[0]
    [user] = scim.users
    assert user["displayName"] == "Made by hand"
    assert row().last_answer == "409: duplicate: userId"


def test_a_conflict_with_one_of_our_own_users_names_its_owner(handler):
    handler([new(5, version=3)])
    [body] = bodies(handler([new(1)]))
    assert body["reason"] == "duplicate: userId"
    assert body["heldBy"] == [{"ownerSignupId": str(UUID(int=5)), "version": 3}]


def test_a_conflict_about_the_address_says_so(handler, scim):
    scim.add(userName="lee", emails=[{"value": "Kim@example.org"}])
    conflict = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": "409"}
    scim.misbehave("POST", how="json", status=409, content=conflict)
    assert verdicts(handler([new()])) == [SAME_EMAIL]


def test_a_user_that_the_server_lost_is_created_again_by_a_replay(handler, scim):
    handler([new()])
    scim.scim("DELETE", f"/Users/{scim.users[0]['id']}")
    assert verdicts(handler([new()])) == [GREEN]
    assert [user["id"] for user in scim.users] == [row().scim_id]


# --- Changes and removals ------------------------------------------------------------------------------------------


def test_a_change_is_a_patch_of_the_differing_attributes(handler, scim):
    handler([new()])
    before = scim.users[0]["id"]
    changed = change(userId="minji", email="minji@example.org", userName="Minji", role="ROLE_ADMIN")
    handled = handler([changed])
    assert verdicts(handled) == [GREEN]
    assert handled.answers[0].topic == "user.changeUser.res"
    [user] = scim.users
    assert (user["id"], user["userName"], user["displayName"]) == (before, "minji", "Minji")
    assert (user["emails"][0]["value"], user["roles"][0]["value"]) == ("minji@example.org", "ROLE_ADMIN")
    assert (row().version, row().last_answer) == (2, "changed")
    assert scim.requests[-1] == "PATCH /Users"


def test_a_deactivation_locks_the_user_out_and_an_activation_lets_it_in(handler, scim):
    handler([new()])
    handler([change(active=False)])
    assert scim.users[0]["active"] is False
    handler([change(version=3)])
    assert scim.users[0]["active"] is True


def test_an_older_change_changes_nothing_and_asks_the_server_nothing(handler, scim):
    handler([new(), change(version=5, userName="Newest")])
    asked = len(scim.requests)
    assert verdicts(handler([change(version=4, userName="Older"), change(version=5)])) == [GREEN, GREEN]
    assert scim.users[0]["displayName"] == "Newest"
    assert len(scim.requests) == asked


def test_a_change_that_overtakes_the_new_user_creates_it(handler, scim):
    assert verdicts(handler([change(version=3, userName="Newest"), new()])) == [GREEN, GREEN]
    assert [user["displayName"] for user in scim.users] == ["Newest"]
    assert row().version == 3


def test_a_change_to_a_name_that_another_user_has_is_red_and_changes_nothing(handler, scim):
    scim.add(userName="lee")
    handler([new()])
    assert verdicts(handler([change(userId="lee", userName="Lee")])) == [SAME_USER_ID]
    assert sorted(user["userName"] for user in scim.users) == ["kim", "lee"]
    assert row().version == 1


def test_a_removal_deletes_the_user_and_leaves_a_tombstone_that_nothing_undoes(handler, scim):
    handler([new()])
    handled = handler([removal()])
    assert verdicts(handled) == [GREEN]
    assert handled.answers[0].topic == "user.removeUser.res"
    assert scim.users == []
    assert (row().scim_id, row().version) == ("", 9)
    assert row().removed_at is not None
    assert verdicts(handler([new(), change(version=12), removal(), new(3, owner=1)])) == [
        IS_REMOVED,
        IS_REMOVED,
        GREEN,
        IS_REMOVED,
    ]
    assert scim.users == []


def test_a_removal_that_comes_first_keeps_the_account_from_being_created(handler, scim):
    assert verdicts(handler([removal(), new()])) == [GREEN, IS_REMOVED]
    assert "POST /Users" not in scim.requests


def test_the_name_of_a_removed_user_is_free(handler, scim):
    handler([new(1), removal(1)])
    assert verdicts(handler([new(2)])) == [GREEN]
    assert [user["externalId"] for user in scim.users] == [str(UUID(int=2))]


def test_a_removal_also_deletes_what_a_frozen_process_created_after_it(handler, scim):
    handler([removal()])
    scim.add(userName="kim", externalId=str(KIM))
    assert verdicts(handler([new()])) == [IS_REMOVED]
    assert scim.users == []


def test_a_wrong_url_never_counts_as_a_removal(handler, scim, settings):
    handler([new()])
    scim.misbehave("DELETE", how="status", status=404)
    with pytest.raises(UnfinishedError, match="still has the user"):
        handler([removal()])
    assert row().removed_at is None


def test_a_removal_finds_the_user_that_somebody_gave_another_external_id(handler, scim):
    handler([new()])
    [user] = scim.users
    patch = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "path": "externalId", "value": "by-hand"}],
    }
    scim.scim("PATCH", f"/Users/{user['id']}", patch)
    assert verdicts(handler([removal()])) == [("SUCCESS", None)]
    assert scim.users == []


def test_an_outdated_record_does_not_create_a_user_that_the_server_lost(handler, scim):
    handler([new(), change(version=3)])
    scim.scim("DELETE", f"/Users/{scim.users[0]['id']}")
    assert verdicts(handler([new()])) == [("SUCCESS", None)]
    assert scim.users == []
    assert row().version == 3


# --- Servers that fail -----------------------------------------------------------------------------------------------


LOST = [
    {"how": "close"},
    {"how": "empty", "status": 201},
    {"how": "html", "status": 201},
    {"how": "html", "status": 502},
    {"how": "status", "status": 500},
    {"how": "status", "status": 504},
    {"how": "json", "status": 201, "content": {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"]}},
    {"how": "json", "status": 201, "content": []},
    {"how": "huge", "status": 201},
]


@pytest.mark.parametrize("fault", LOST, ids=str)
def test_a_lost_answer_never_creates_a_second_user(handler, scim, fault):
    scim.misbehave("POST", does=True, **fault)
    assert verdicts(handler([new()])) == [GREEN]
    assert scim.requests.count("POST /Users") == 1
    assert [user["id"] for user in scim.users] == [row().scim_id]


@pytest.mark.parametrize("scim_id", ["", "x" * 256, "\x00", "\ud83d"], ids=["empty", "long", "NUL", "half an emoji"])
def test_an_id_that_cannot_be_stored_is_no_users(handler, scim, scim_id):
    user = {"schemas": [USER], "id": scim_id, "userName": "kim", "externalId": str(KIM)}
    scim.misbehave("POST", how="json", status=201, content=user)
    with pytest.raises(UnfinishedError, match="the answer does not contain the new user"):
        handler([new()])
    assert row().scim_id == ""
    assert verdicts(handler([new()])) == [GREEN]


def test_an_answer_about_a_different_user_is_ignored(handler, scim):
    stranger = scim.add(userName="stranger", externalId="somebody else")
    content = scim.scim("GET", f"/Users/{stranger}")
    scim.misbehave("POST", how="json", status=201, content=content)
    with pytest.raises(UnfinishedError, match="different user"):
        handler([new()])
    assert row().scim_id == ""
    assert verdicts(handler([new()])) == [GREEN]
    assert row().scim_id != stranger


UNUSABLE = [
    ({"how": "close"}, "no answer"),
    ({"how": "empty", "status": 200}, "empty"),
    ({"how": "html", "status": 200}, "not a SCIM answer"),
    ({"how": "html", "status": 500}, "500"),
    ({"how": "huge", "status": 200}, "more than 1048576 bytes"),
    ({"how": "json", "content": {"schemas": []}}, "not a SCIM answer"),
    ({"how": "json", "content": "text"}, "not a SCIM answer"),
    ({"how": "status", "status": 401}, "401 Unauthorized: check the server's token in SCIM_TOKENS"),
    ({"how": "status", "status": 403}, "403 Forbidden: check the server's URL and the rights of its token"),
    ({"how": "status", "status": 404}, "404 Not Found: check the server's URL"),
    ({"how": "status", "status": 302, "headers": {"Location": "https://login.example.org/"}}, "redirect"),
    ({"how": "status", "status": 503}, "503"),
    ({"how": "json", "status": 200, "headers": {}, "content": {"a": "[" * 100_000}}, "not a SCIM answer"),
    (
        {"how": "status", "headers": {"Content-Type": "application/scim+json; charset=base64"}, "content": "{}"},
        "not a SCIM answer",
    ),
]


@pytest.mark.parametrize(("fault", "said"), UNUSABLE, ids=str)
def test_a_server_that_cannot_be_used_is_waited_for_and_nothing_is_lost(handler, scim, fault, said):
    scim.misbehave("GET", times=9, **fault)
    batch = [new(1), new(2, userId="lee", email="lee@example.org")]
    with pytest.raises(ScimUnavailableError, match="crm can't be provisioned") as waiting:
        handler(batch)
    assert said in str(waiting.value)
    assert TOKEN not in str(waiting.value)
    assert said in row().last_answer
    scim.behave()
    assert verdicts(handler(batch)) == [GREEN, GREEN]
    assert names(scim) == [("kim", "kim@example.org"), ("lee", "lee@example.org")]


@pytest.mark.parametrize("words", ["long " * 100, "\x00", "\ud83d"], ids=["long", "NUL", "half an emoji"])
def test_a_server_s_words_are_stored_as_far_as_every_database_can_store_them(handler, scim, words):
    scim.misbehave("GET", how="json", status=200, content={"schemas": [words]})
    with pytest.raises(ScimUnavailableError):
        handler([new()])
    assert row().last_answer.startswith("lookup: not a SCIM answer: ")
    assert row().last_answer.isprintable()
    assert len(row().last_answer) <= LAST_ANSWER_MAX


def test_a_server_that_ignores_the_filter_is_waited_for_instead_of_creating_users_twice(handler, scim):
    scim.add(userName="stranger", externalId="somebody else")
    everybody = scim.scim("GET", "/Users")
    scim.misbehave("GET", how="json", content=everybody)
    with pytest.raises(ScimUnavailableError, match="different user"):
        handler([new()])
    assert "POST /Users" not in scim.requests


# Seconds that a request may take.
SLOWEST = 0.8 * server.ANSWERS_WITHIN


def time_left(error: str) -> float:
    """Return the seconds that the failed request had left."""
    [seconds] = re.findall(r"no complete answer within (\S+) s", error)
    return float(seconds)


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_server_that_never_finishes_its_answer_is_given_up_in_time(handler, scim, how, monkeypatch):
    monkeypatch.setattr(server, "ANSWERS_WITHIN", 1.0)
    scim.misbehave("GET", how=how)
    with pytest.raises(ScimUnavailableError, match="no complete answer within 1 s"):
        handler([new()])
    scim.behave()
    assert verdicts(handler([new()])) == [GREEN]


def test_all_requests_about_one_account_end_in_time_although_none_of_them_is_too_slow(handler, scim, monkeypatch):
    monkeypatch.setattr(account_claims, "ACCOUNT_WITHIN", 2.0)
    handler([new(1)])
    # The second kim takes four requests: a lookup, a refused POST, and two more lookups. The third request is ended.
    scim.misbehave("GET", "POST", how="slow", seconds=0.3, times=2)
    scim.misbehave("GET", how="slow", seconds=SLOWEST)
    begun = time.monotonic()
    with pytest.raises(ScimError) as ended:
        handler([new(2)])
    assert time.monotonic() - begun < SLOWEST
    assert time_left(str(ended.value)) <= 2.0 - 2 * 0.3
    scim.behave()
    assert verdicts(handler([new(2)])) == [SAME_USER_ID]


@pytest.mark.parametrize(("retry_after", "seconds"), [("7", 7), ("100000", 300), ("soon", 0), ("-1", 0)])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_busy_server_is_asked_again_after_its_retry_after(handler, scim, method, status, retry_after, seconds):
    scim.misbehave(method, how="status", status=status, headers={"Retry-After": retry_after})
    with pytest.raises(ScimUnavailableError) as waiting:
        handler([new()])
    assert waiting.value.retry_after == seconds
    assert verdicts(handler([new()])) == [GREEN]


def test_a_date_as_retry_after_is_understood(handler, scim):
    date = (timezone.now() + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    scim.misbehave("GET", how="status", status=429, headers={"Retry-After": date})
    with pytest.raises(ScimUnavailableError) as waiting:
        handler([new()])
    assert 50 < waiting.value.retry_after <= 100


def test_handled_messages_are_not_repeated_while_others_of_the_batch_are_retried(handler, scim):
    batch = [new(1), new(2, userId="lee", email="lee@example.org"), new(3, userId="park", email="park@example.org")]
    scim.misbehave("GET", how="status", status=429, about=str(UUID(int=2)), times=2)
    for _ in range(2):
        with pytest.raises(TransientError):
            handler(batch)
    assert verdicts(handler(batch)) == [GREEN, GREEN, GREEN]
    assert scim.requests.count("POST /Users") == 3
    assert scim.requests.count("GET /Users") == 3 + 2


def test_a_write_that_fails_does_not_keep_the_others_of_its_batch_waiting(handler, scim):
    scim.misbehave("POST", how="status", status=500, about=str(KIM), times=99)
    with pytest.raises(UnfinishedError):
        handler([new(1), new(2, userId="lee", email="lee@example.org")])
    assert [user["userName"] for user in scim.users] == ["lee"]


def test_a_message_whose_write_keeps_failing_is_dead_lettered_but_never_all_of_them(handler, scim, monkeypatch):
    monkeypatch.setattr(handlers, "DEAD_LETTERED_AFTER", 0.0)
    scim.misbehave("POST", how="status", status=500, times=99)
    set_aside = [handler([new(number, userId=f"kim{number}")]).rejected for number in (1, 2, 3)]
    assert [[str(error) for _, error in each] for each in set_aside] == 3 * [["POST: 500 Internal Server Error"]]
    with pytest.raises(UnfinishedError):
        handler([new(4, userId="kim4")])
    scim.behave()
    handler([new(4, userId="kim4")])
    scim.misbehave("POST", how="status", status=500)
    assert handler([new(5, userId="kim5")]).rejected


@pytest.mark.parametrize("status", [403, 409, 500])
def test_a_user_whom_the_server_does_not_delete_delays_nobody_else(handler, scim, monkeypatch, status):
    handler([new(1)])
    scim.misbehave("DELETE", how="status", status=status, times=99)
    batch = [removal(1), new(2, userId="lee", email="lee@example.org")]
    with pytest.raises(UnfinishedError, match=f"DELETE: {status}"):
        handler(batch)
    assert names(scim) == [("kim", "kim@example.org"), ("lee", "lee@example.org")]
    monkeypatch.setattr(handlers, "DEAD_LETTERED_AFTER", 0.0)
    handled = handler(batch)
    assert [body["status"] for body in bodies(handled)] == ["SUCCESS"]
    assert [message for message, _ in handled.rejected] == batch[:1]


def test_data_that_the_server_rejects_is_dead_lettered_alone(handler, scim):
    problem = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "scimType": "invalidValue", "status": "400"}
    scim.misbehave("POST", how="json", status=400, content=problem, about=str(KIM))
    handled = handler([new(1), new(2, userId="lee", email="lee@example.org")])
    assert [(body["status"], body["signupId"]) for body in bodies(handled)] == [("SUCCESS", str(UUID(int=2)))]
    [(_, error)] = handled.rejected
    assert str(error) == "POST: 400 Bad Request (invalidValue)"


def test_a_message_that_cannot_be_decoded_is_dead_lettered_alone(handler):
    handled = handler([message("user.newUser.req", {"userId": "kim"}), new()])
    assert len(handled.rejected) == len(handled.answers) == 1


# --- Several processes and servers -------------------------------------------------------------------------------


def test_an_account_that_another_process_works_on_is_left_to_it(handler, scim):
    soon = timezone.now() + timedelta(seconds=60)
    ScimAccount.objects.create(server="crm", owner_signup_id=KIM, claimed_until=soon)
    with pytest.raises(LostClaimError):
        handler([new()])
    assert scim.requests == []
    ScimAccount.objects.update(claimed_until=timezone.now())
    assert verdicts(handler([new()])) == [GREEN]
    assert row().claimed_until is None


def test_a_server_that_is_down_does_not_delay_another(handler, scim, settings):
    settings.SCIM_SERVERS["wiki"] = f"http://{LOOPBACK}:{free_port()}/v2"
    settings.SCIM_TOKENS["wiki"] = TOKEN
    wiki = ScimHandler("wiki")
    with pytest.raises(ScimUnavailableError, match="wiki can't be provisioned: lookup: no answer"):
        wiki([new()])
    wiki.connection.provisioning.close()
    assert verdicts(handler([new()])) == [GREEN]
    assert {each.server: each.scim_id != "" for each in ScimAccount.objects.all()} == {"crm": True, "wiki": False}


# --- Accounts that exchange their values ---------------------------------------------------------------------------


NAMES = ("kim", "lee", "park")


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("field", ["userId", "email"])
def test_accounts_that_exchange_a_value_all_get_the_new_one(handler, scim, field, count):
    scim.demand_unique_emails()
    values = [{"userId": name, "email": f"{name}@example.org"} for name in NAMES[:count]]
    handler([new(n, **each) for n, each in enumerate(values, 1)])
    rotated = [each | {field: values[(n + 1) % count][field]} for n, each in enumerate(values)]
    changes = [change(n, **each) for n, each in enumerate(rotated, 1)]
    rounds = 0
    while refused := [body for body in bodies(handler(changes)) if body["status"] == "FAIL"]:
        # So auth waits for the others, and sends the request again.
        assert all(body["heldBy"] for body in refused)
        changes = [change(n, **each) for n, each in enumerate(rotated, 1)]
        rounds += 1
        assert rounds <= 2 * count
    stored = {user["externalId"]: (user["userName"], user["emails"][0]["value"]) for user in scim.users}
    assert stored == {str(UUID(int=n)): (each["userId"], each["email"]) for n, each in enumerate(rotated, 1)}
    assert not ScimAccount.objects.exclude(blocked_by=None).exists()


def test_an_account_that_waits_for_another_without_an_exchange_keeps_its_values(handler, scim):
    handler([new(1), new(2, userId="lee", email="lee@example.org")])
    for _ in range(3):
        assert verdicts(handler([change(1, userId="lee")])) == [SAME_USER_ID]
    assert sorted(user["userName"] for user in scim.users) == ["kim", "lee"]
    assert verdicts(handler([change(2, userId="park", email="lee@example.org"), change(1, userId="lee")])) == [
        GREEN, GREEN,
    ]  # fmt: skip


def test_an_export_holds_only_data_about_the_person():
    owner = uuid4()
    ScimAccount.objects.create(server="crm", owner_signup_id=owner, signup_id=owner, scim_id="7", blocked_by=uuid4())
    [record] = rows_held(ScimAccount.objects.filter(server="crm"))(owner)
    assert set(record) == {
        "server", "ownerSignupId", "signupId", "scimId", "version", "lastAnswer", "answeredAt",
    }  # fmt: skip
