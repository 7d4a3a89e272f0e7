"""A participant's part in reconcile, on its database: the rows after a page, and the answers."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from chatsvc.models import ChatUser
from eventbus.messages import HandledBatch, Incoming
from eventbus.subscriptions import subscriptions_of
from participant.reconcile import ReconcileHandler

pytestmark = pytest.mark.django_db(databases=["chat"])

accounts, reconcile = subscriptions_of("chat")
RUN = UUID(int=7)
IN_A_MINUTE = timedelta(minutes=1)


def record(owner: int, user_id: str = "kim", **fields: Any) -> dict[str, Any]:
    return {
        "ownerSignupId": str(UUID(int=owner)), "userId": user_id, "email": f"{user_id}@example.org", "userName": "Kim",
        "role": "ROLE_USER",
    } | fields  # fmt: skip


def page(*records: dict[str, Any], expires: timedelta = IN_A_MINUTE, **fields: Any) -> Incoming:
    now = datetime.now(UTC)
    event = {
        "runId": str(RUN), "page": 3, "heal": False, "services": ["chat"], "records": records,
        "occurredAt": now.isoformat(), "expiresAt": (now + expires).isoformat(),
    }  # fmt: skip
    return message(json.dumps(event | fields).encode())


def message(value: bytes | None) -> Incoming:
    return Incoming(topic="user.reconcile.req", partition=0, offset=0, key=b"7:3", value=value)


def asked(owner: int, user_id: str = "kim") -> Incoming:
    """The request of the sign-up that created the record."""
    event = record(owner, user_id) | {"signupId": str(UUID(int=owner)), "occurredAt": "2026-01-01T00:00:00Z"}
    return Incoming("user.newUser.req", 0, 0, b"", json.dumps(event).encode())


def findings(handled: HandledBatch) -> list[dict[str, Any]]:
    return [finding for answer in handled.answers for finding in json.loads(answer.value)["findings"]]


def handle(*batch: Incoming) -> HandledBatch:
    handled = reconcile.handle(batch)
    assert not handled.rejected
    return handled


def rows() -> set[tuple[Any, ...]]:
    return set(ChatUser.objects.values_list("signup_id", "owner_signup_id", "user_id", "user_id_key", "email"))


def row(owner: int, user_id: str = "kim") -> tuple[Any, ...]:
    return (UUID(int=owner), UUID(int=owner), user_id, user_id.lower(), f"{user_id}@example.org")


def test_an_answer_names_its_service_and_has_the_key_of_its_page():
    [answer] = handle(page(record(1))).answers
    body = json.loads(answer.value)
    assert (body["runId"], body["page"], body["service"], body["more"]) == (str(RUN), 3, "chat", False)
    assert (answer.topic, answer.key) == ("user.reconcile.res", f"{RUN}:3")


def test_a_page_that_finds_nothing_is_answered_too():
    handle(page(record(1), heal=True))
    handled = handle(page(record(1)))
    assert (len(handled.answers), findings(handled)) == (1, [])


def test_a_row_that_is_newer_than_the_page_is_reported_and_left_alone():
    handle(page(record(1, "newest", version=3), heal=True))
    [finding] = findings(handle(page(record(1, version=2), owners={}, heal=True)))
    assert (finding["kind"], finding["userId"], finding["version"]) == ("newer", "kim", 3)
    assert "healed" not in finding
    assert ChatUser.objects.get().user_id == "newest"


def test_a_deactivation_that_was_missed_is_different_and_healed():
    handle(page(record(1), heal=True))
    ChatUser.objects.update(is_active=False)
    [finding] = findings(handle(page(record(1, version=2, active=False), heal=True)))
    assert (finding["kind"], finding["fields"], finding["healed"]) == ("different", ["active", "version"], True)
    assert ChatUser.objects.values_list("version", "is_account_active", "is_active").get() == (2, False, False)
    handle(page(record(1, version=3), heal=True))
    assert (ChatUser.objects.get().is_account_active, ChatUser.objects.get().may_enter) == (True, False)


def test_users_that_swapped_addresses_are_healed_on_one_page():
    handle(page(record(1, email="a@example.org"), record(2, "lee", email="b@example.org"), heal=True))
    swapped = [record(1, email="b@example.org", version=2), record(2, "lee", email="a@example.org", version=3)]
    assert [finding["healed"] for finding in findings(handle(page(*swapped, heal=True)))] == [True, True]
    assert findings(handle(page(*swapped))) == []


def removed_page(*records: dict[str, Any], owners: tuple[int, ...] = (1,), heal: bool = True) -> Incoming:
    return page(*records, removed=[str(UUID(int=owner)) for owner in owners], owners={}, heal=heal)


def test_a_row_of_a_removed_account_is_reported_as_such_and_healing_leaves_a_tombstone():
    handle(page(record(1), heal=True))
    [finding] = findings(handle(removed_page(heal=False)))
    assert (finding["kind"], finding["userId"], finding.get("healed", False)) == ("removed", "kim", False)
    assert rows() == {row(1)}
    [finding] = findings(handle(removed_page()))
    assert (finding["kind"], finding["userId"], finding.get("healed", False)) == ("removed", "kim", True)
    assert rows() == set()
    assert findings(handle(removed_page())) == []
    [tombstone] = ChatUser.every.all()
    assert (tombstone.owner_signup_id, tombstone.user_id, tombstone.user_name) == (UUID(int=1), "", "")


def test_a_new_person_with_the_user_id_of_a_removed_one_is_missing_and_added_on_the_same_page():
    handle(page(record(1), heal=True))
    for heal in (False, True):
        found = findings(handle(removed_page(record(2), heal=heal)))
        assert [(finding["kind"], finding.get("healed", False)) for finding in found] == [
            ("removed", heal),
            ("missing", heal),
        ]
    assert rows() == {row(2)}


def test_neither_reconcile_nor_a_late_sign_up_adds_a_removed_account_again():
    handle(removed_page(owners=(1, 2)))
    [finding] = findings(handle(page(record(1, version=9), heal=True, owners={})))
    assert (finding["kind"], finding.get("healed", False)) == ("revived", False)
    [answer] = accounts.handle([asked(2)]).answers
    assert json.loads(answer.value)["reason"] == "removed"
    assert rows() == set()


def test_a_redelivered_page_adds_nothing_and_finds_nothing_more():
    healing = page(record(1), record(2, "lee"), heal=True)
    assert [finding["healed"] for finding in findings(handle(healing))] == [True, True]
    assert findings(handle(healing, healing)) == []
    assert rows() == {row(1), row(2, "lee")}


def test_a_healed_user_is_no_duplicate_to_its_own_sign_up():
    handle(page(record(1), heal=True))
    [answer] = accounts.handle([asked(1)]).answers
    assert json.loads(answer.value)["status"] == "SUCCESS"


def test_it_heals_under_the_normalised_user_id_and_email():
    handle(page(record(1, "Ｋim", email="Kim@Example.ORG"), heal=True))
    user = ChatUser.objects.get()
    assert (user.user_id, user.user_id_key, user.email) == ("Kim", "kim", "kim@example.org")


def test_a_corrected_row_keeps_the_id_of_the_strangers_sign_up_that_made_it():
    ChatUser.objects.create(signup_id=UUID(int=5), owner_signup_id=UUID(int=1), user_id="old", email="old@example.org")
    handle(page(record(1), heal=True))
    assert rows() == {(UUID(int=5), *row(1)[1:])}


def test_a_row_whose_record_is_gone_is_adopted_by_the_account_with_its_user_id():
    ChatUser.objects.create(
        signup_id=UUID(int=9), owner_signup_id=UUID(int=9), user_id="kim", email="old@example.org", is_active=False
    )
    assert [finding["kind"] for finding in findings(handle(page(record(1), heal=True)))] == ["conflicting"]
    handle(page(record(1), heal=True, gone=[str(UUID(int=9))]))
    assert rows() == {row(1)}
    assert not ChatUser.objects.get().is_active


def test_rows_without_a_record_within_the_range_of_a_page_are_superfluous():
    for owner in (1, 2, 3, 4):
        ChatUser.objects.create(owner_signup_id=UUID(int=owner), user_id=f"u{owner}", email=f"u{owner}@example.org")
    ChatUser.objects.create(user_id="by-hand", email="by-hand@example.org")
    between = {"after": str(UUID(int=1)), "upTo": str(UUID(int=3))}
    found = findings(handle(page(record(2, "u2", userName=""), owners=between)))
    assert [(finding["kind"], finding["userId"]) for finding in found] == [("superfluous", "u3")]
    assert len(findings(handle(page(owners={})))) == 4
    [unowned] = findings(handle(page(unowned=True)))
    assert (unowned["userId"], "ownerSignupId" in unowned) == ("by-hand", False)


def test_a_page_that_has_expired_or_is_for_other_services_is_ignored():
    late, others = page(record(1), heal=True, expires=-IN_A_MINUTE), page(record(1), heal=True, services=["customer"])
    assert handle(late, others) == HandledBatch([], [])
    assert rows() == set()


@pytest.mark.parametrize(
    "broken",
    [
        message(None),
        message(b"\xff"),
        page({"userId": "kim"}),
        page(record(1, "ki\x00m")),
        page(record(1), record(1, "lee")),
        page(record(1), record(2, "KIM", email="other@example.org")),
        page(record(1), record(2, "lee", email="KIM@example.org")),
        page(*(record(n, f"u{n}") for n in range(1, 502))),
        page(record(1), expiresAt="2026-01-01T00:00:00"),
    ],
)
def test_an_invalid_page_is_rejected_alone(broken):
    handled = reconcile.handle([broken, page(record(1), heal=True)])
    assert [rejected for rejected, _ in handled.rejected] == [broken]
    assert rows() == {row(1)}


def test_a_page_takes_few_queries_however_many_users_it_has():
    with CaptureQueriesContext(connections["chat"]) as few:
        handle(page(*(record(n, f"a{n}") for n in range(1, 3)), heal=True, owners={}))
    with CaptureQueriesContext(connections["chat"]) as many:
        handle(page(*(record(n, f"b{n}") for n in range(1001, 1101)), heal=True, owners={}))
    assert len(many) == len(few)


# --- Each kind of finding -----------------------------------------------------------------------------------------


def create(owner: int | None, user_id: str, email: str = "", **fields: Any) -> ChatUser:
    owner_signup_id = None if owner is None else UUID(int=owner)
    return ChatUser.objects.create(
        owner_signup_id=owner_signup_id, user_id=user_id, email=email or f"{user_id}@example.org", **fields
    )


@pytest.mark.parametrize("heal", [False, True])
def test_every_finding_says_what_a_person_needs_to_decide(heal):
    create(2, "lee", user_name="Old")
    create(None, "park")
    create(4, "zoe", user_name="Kim", version=5)
    create(5, "old")
    create(6, "orphan")
    bury_five = {"removed": [str(UUID(int=5))], "owners": {}, "heal": heal}
    found = findings(
        handle(page(record(1), record(2, "lee"), record(3, "park"), record(4, "zoe", version=4), **bury_five))
    )
    healed = {"healed": True} if heal else {}

    def said(kind: str, owner: int, user_id: str, **more: Any) -> dict[str, Any]:
        named = {"kind": kind, "userId": user_id, "email": f"{user_id}@example.org"}
        return named | {"ownerSignupId": str(UUID(int=owner))} | more

    assert found == [
        said("removed", 5, "old", **healed),
        said("newer", 4, "zoe", version=5),
        said("missing", 1, "kim", **healed),
        said("different", 2, "lee", fields=["userName"], **healed),
        said("conflicting", 3, "park", heldBy=[{"userId": "park", "email": "park@example.org"}]),
        said("superfluous", 6, "orphan"),
    ]
    assert ChatUser.objects.filter(user_id="kim").exists() is heal
    assert ChatUser.objects.get(user_id="lee").user_name == ("Kim" if heal else "Old")
    assert ChatUser.objects.get(user_id="park").owner_signup_id is None
    assert ChatUser.objects.get(user_id="zoe").version == 5
    assert ChatUser.objects.filter(user_id="old").exists() is not heal


def test_a_row_in_the_way_is_reported_with_its_owner():
    create(9, "kim", "other@example.org")
    [finding] = findings(handle(page(record(1), heal=True)))
    assert finding["heldBy"] == [
        {"userId": "kim", "email": "other@example.org", "ownerSignupId": str(UUID(int=9))},
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "kind"), [(1, "newer"), (2, None), (3, "different")])
def test_a_row_is_newer_only_if_its_version_is_higher(version, kind):
    create(1, "kim", user_name="Kim", version=2)
    found = findings(handle(page(record(1, version=version))))
    assert [finding["kind"] for finding in found] == ([kind] if kind else [])


def test_a_removed_row_is_no_longer_in_the_way_of_a_new_person_and_not_superfluous():
    create(1, "kim", user_name="Kim")
    found = findings(handle(removed_page(record(2), heal=False)))
    assert [(finding["kind"], finding["ownerSignupId"]) for finding in found] == [
        ("removed", str(UUID(int=1))), ("missing", str(UUID(int=2))),
    ]  # fmt: skip


def test_a_removed_account_that_the_participant_never_had_gets_one_tombstone():
    buried = ChatUser.every.order_by("owner_signup_id").values_list("owner_signup_id", "version", "removed_at")
    assert findings(handle(removed_page(owners=(1, 2)))) == []
    first = list(buried.all())
    assert [(owner, version) for owner, version, _ in first] == [(UUID(int=1), 1), (UUID(int=2), 1)]
    assert findings(handle(removed_page(owners=(1, 2)))) == []
    assert list(buried.all()) == first


def test_a_record_whose_account_this_page_removes_is_revived_and_not_added():
    found = findings(handle(removed_page(record(1), record(2, "lee"))))
    assert [(finding["kind"], finding["userId"]) for finding in found] == [("revived", "kim"), ("missing", "lee")]
    assert rows() == {row(2, "lee")}


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ({}, {1, 2, 3}),
        ({"after": 1}, {2, 3}),
        ({"upTo": 2}, {1, 2}),
        ({"after": 1, "upTo": 2}, {2}),
        ({"after": 3}, set()),
    ],
)
def test_a_range_excludes_its_beginning_and_includes_its_end(between, found):
    for owner in (3, 1, 2):
        create(owner, f"u{owner}")
    create(None, "by-hand")
    owners = {name: str(UUID(int=owner)) for name, owner in between.items()}
    reported = findings(handle(page(owners=owners)))
    assert [UUID(finding["ownerSignupId"]).int for finding in reported] == [n for n in (3, 1, 2) if n in found]


def test_without_a_range_no_row_is_superfluous():
    create(1, "u1")
    create(None, "by-hand")
    assert findings(handle(page())) == []


def test_the_services_own_work_runs_for_a_user_added_by_healing():
    greeted: list[tuple[Any, ...]] = []
    handler = ReconcileHandler("chat", ChatUser, on_new_users=lambda *new: greeted.append(new))
    create(2, "lee", user_name="Old")
    handler([page(record(1), record(2, "lee"), heal=True)])
    [[users]] = greeted
    assert [user.user_id for user in users] == ["kim"]
