"""Whole lives of accounts in every order: sign-ups, changes and removals reach a participant's database at least once.

Auth is a model: its records with their unique keys, its event transactions with one light each, and its rules for
answers (docs/asyncapi.yaml: accounts in the way). The participants are the real ones, and so is the SCIM server, which
accepts each userName and each address once.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Any
from uuid import UUID

import pytest
from django.db.models import F
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from eventbus.messages import Handler, Incoming
from eventbus.subscriptions import subscriptions_of
from participant.accounts import AccountHandler
from participant.events import CHANGE_REQUESTED, NEW_USER_REQUESTED, REMOVAL_REQUESTED
from scimsvc.handlers import ScimHandler
from scimsvc.models import ScimAccount
from scimsvc.provisioning import Provisioning
from scimsvc.server import ScimServer
from tests.servers import ScimTestServer
from tests.servers.scim import TOKEN

pytestmark = pytest.mark.django_db(databases=["chat", "customer", "scim"], transaction=True)

# Few of each, so that they collide.
USER_IDS = ["kim", "lee", "park"]
_offsets = count()
EMAILS = [f"{name}@example.org" for name in ("a", "b", "c")]


@pytest.fixture(scope="module")
def scim() -> Iterator[ScimTestServer]:
    with ScimTestServer() as running:
        yield running


@pytest.fixture(scope="module")
def provisioning(scim: ScimTestServer) -> Iterator[Provisioning]:
    provisioning = Provisioning("crm", ScimServer(scim.url, TOKEN))
    yield provisioning
    provisioning.close()


@dataclass(frozen=True)
class Record:
    owner: int
    user_id: str
    email: str
    version: int = 1
    active: bool = True


@dataclass
class Transaction:
    id: int
    topic: str
    owner: int
    light: str = "PENDING"


@dataclass
class Auth:
    records: dict[int, Record] = field(default_factory=dict)
    removed: dict[int, int] = field(default_factory=dict)
    transactions: dict[UUID, Transaction] = field(default_factory=dict)
    # The events published so far, each with the record of that time.
    published: list[Incoming] = field(default_factory=list)

    def sign_up(self, user_id: str, email: str) -> None:
        """A new account or, if auth knows the userId or the address, a stranger's attempt on it."""
        number = len(self.transactions) + 1
        known = sorted(self.records.values(), key=lambda record: record.user_id != user_id)
        owner = next((record.owner for record in known if user_id == record.user_id or email == record.email), number)
        self.records.setdefault(owner, Record(owner, user_id, email))
        self._begin(NEW_USER_REQUESTED, owner)

    def change(self, owner: int, **values: Any) -> None:
        wanted = replace(self.records[owner], version=self.records[owner].version + 1, **values)
        others = [record for record in self.records.values() if record.owner != owner]
        if all(wanted.user_id != other.user_id and wanted.email != other.email for other in others):
            self.records[owner] = wanted
            self._begin(CHANGE_REQUESTED, owner)

    def swap(self, one: int, other: int, name: str) -> None:
        """Two accounts exchange their userIds or addresses, as they must: by way of a third one."""
        first, second = getattr(self.records[one], name), getattr(self.records[other], name)
        for owner, value in ((one, f"between-{first}"), (other, first), (one, second)):
            self.change(owner, **{name: value})

    def remove(self, owner: int) -> None:
        self.removed[owner] = self.records.pop(owner).version + 1
        for earlier in self.transactions.values():
            if earlier.owner == owner and earlier.light == "PENDING":
                earlier.light = "FAIL"
        self._begin(REMOVAL_REQUESTED, owner)

    def _begin(self, topic: str, owner: int) -> None:
        begun = Transaction(len(self.transactions) + 1, topic, owner)
        self.transactions[UUID(int=begun.id)] = begun
        self.published.append(self.request(begun))

    def request(self, about: Transaction) -> Incoming:
        event: dict[str, Any] = {"ownerSignupId": str(UUID(int=about.owner))}
        event["signupId" if about.topic == NEW_USER_REQUESTED else "changeId"] = str(UUID(int=about.id))
        if about.topic == REMOVAL_REQUESTED:
            event |= {"userId": "", "version": self.removed[about.owner]}
        else:
            record = self.records[about.owner]
            event |= {"userId": record.user_id, "email": record.email, "userName": "Kim", "role": "ROLE_USER"}
            event |= {"version": record.version, "active": record.active}
        return Incoming(about.topic, 0, next(_offsets), b"", json.dumps(event).encode())

    @property
    def due(self) -> list[Incoming]:
        return [self.request(each) for each in self.transactions.values() if each.light == "PENDING"]

    def hear(self, answer: dict[str, Any]) -> None:
        about = self.transactions[UUID(answer.get("signupId") or answer["changeId"])]
        in_the_way = {UUID(each["ownerSignupId"]).int for each in answer.get("heldBy", ())}
        # Auth's records share no key, so this participant has not heard of a change or removal yet.
        known = self.records.keys() | self.removed.keys()
        is_premature = bool(in_the_way) and about.owner not in in_the_way and in_the_way <= known
        if about.light == "PENDING" and not is_premature:
            about.light = answer["status"]


@st.composite
def lives(draw: st.DrawFn) -> Auth:
    auth = Auth()
    for _ in range(draw(st.integers(1, 9))):
        owners = sorted(auth.records)
        acts = [
            "sign up",
            *(["change", "deactivate", "remove"] if owners else []),
            *(["swap"] * 3 if len(owners) > 1 else []),
        ]
        match draw(st.sampled_from(acts)):
            case "sign up":
                auth.sign_up(draw(st.sampled_from(USER_IDS)), draw(st.sampled_from(EMAILS)))
            case "change":
                values = {"user_id": draw(st.sampled_from(USER_IDS)), "email": draw(st.sampled_from(EMAILS))}
                auth.change(draw(st.sampled_from(owners)), **values)
            case "deactivate":
                auth.change(owner := draw(st.sampled_from(owners)), active=not auth.records[owner].active)
            case "swap":
                one, other = draw(st.permutations(owners))[:2]
                auth.swap(one, other, draw(st.sampled_from(["user_id", "email"])))
            case "remove":
                auth.remove(draw(st.sampled_from(owners)))
    return auth


def batches(messages: Sequence[Incoming], data: st.DataObject) -> list[list[Incoming]]:
    """The messages in any order, some of them repeatedly, in batches of any size."""
    repeated = data.draw(st.lists(st.sampled_from(messages), max_size=6)) if messages else []
    order = data.draw(st.permutations([*messages, *repeated]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=6)))
    bounds = [0, *cuts, len(order)]
    return [list(order[start:end]) for start, end in pairwise(bounds)]


def deliver(handle: Handler, auth: Auth, messages: Sequence[Incoming], data: st.DataObject) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for batch in batches(messages, data):
        handled = handle(batch)
        assert not handled.rejected
        answers += [json.loads(answer.value) for answer in handled.answers]
    for answer in answers:
        auth.hear(answer)
    return answers


# Rows as (owner, userId, email, version, active), and the owners of tombstones.
Rows = set[tuple[UUID, str, str, int, bool]]
Stored = Callable[[], tuple[Rows, set[UUID]]]


def live_through(handle: Handler, stored: Stored, auth: Auth, data: st.DataObject) -> None:
    """Deliver everything in any order until auth has all answers, and then once more. Only auth's records remain."""
    deliver(handle, auth, auth.published, data)
    rounds = 0
    while due := auth.due:
        deliver(handle, auth, due, data)
        rounds += 1
        assert rounds <= 2 * len(auth.transactions), "auth asks in vain"

    records = {
        (UUID(int=each.owner), each.user_id, each.email, each.version, each.active) for each in auth.records.values()
    }
    removed = {UUID(int=owner) for owner in auth.removed}
    assert stored() == (records, removed)
    lights = {each.id: each.light for each in auth.transactions.values()}
    for each in auth.transactions.values():
        is_strangers = each.topic == NEW_USER_REQUESTED and each.id != each.owner
        if each.topic == REMOVAL_REQUESTED or (each.owner in auth.records and not is_strangers):
            assert each.light == "SUCCESS", each

    # Any event that was ever published may be delivered again.
    answers = deliver(handle, auth, auth.published, data)
    assert stored() == (records, removed)
    for answer in answers:
        about = auth.transactions[UUID(answer.get("signupId") or answer["changeId"])]
        if about.owner in auth.removed and about.topic != REMOVAL_REQUESTED:
            assert (answer["status"], answer["reason"]) == ("FAIL", "removed")
    assert {each.id: each.light for each in auth.transactions.values()} == lights


@pytest.mark.parametrize("service", ["chat", "customer"])
@hypothesis_settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(auth=lives(), data=st.data())
def test_after_any_order_and_repetition_the_rows_are_auths_records(service: str, auth: Auth, data: st.DataObject):
    handle = subscriptions_of(service)[0].handle
    assert isinstance(handle, AccountHandler)
    handle.model.every.all().delete()
    tombstones = handle.model.every.exclude(removed_at=None)

    def stored() -> tuple[Rows, set[UUID]]:
        assert not handle.model.objects.exclude(user_id_key=F("user_id")).exists()
        columns = ("owner_signup_id", "user_id", "email", "version", "is_account_active")
        rows = set(handle.model.objects.values_list(*columns))
        return rows, set(tombstones.values_list("owner_signup_id", flat=True))

    live_through(handle, stored, auth, data)
    assert set(tombstones.values_list("user_id", "user_name", "role", "signup_id")) <= {("", "", "", None)}


@hypothesis_settings(
    max_examples=12,
    deadline=None,
    # Shrinking a failure would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(auth=lives(), data=st.data())
def test_after_any_order_and_repetition_the_users_of_a_scim_server_are_auths_records(
    scim: ScimTestServer, provisioning: Provisioning, auth: Auth, data: st.DataObject
):
    scim.reset()
    scim.demand_unique_emails()
    ScimAccount.objects.all().delete()
    handle = ScimHandler("crm")
    handle.connection.provisioning = provisioning

    def stored() -> tuple[Rows, set[UUID]]:
        living = ScimAccount.objects.filter(removed_at=None).exclude(scim_id="")
        versions = dict(living.values_list("owner_signup_id", "version"))
        rows = {
            (owner := UUID(user["externalId"]), user["userName"], user["emails"][0]["value"], versions[owner],
             user["active"])
            for user in scim.users
        }  # fmt: skip
        return rows, set(ScimAccount.objects.exclude(removed_at=None).values_list("owner_signup_id", flat=True))

    live_through(handle, stored, auth, data)


def test_a_late_sign_up_does_not_lose_to_the_account_that_has_its_user_id_now():
    """Chat hears of the second account first, which is called kim now, and then of the sign-up that was kim once."""
    auth = Auth()
    auth.sign_up("kim", EMAILS[0])
    auth.sign_up("lee", EMAILS[1])
    auth.swap(1, 2, "user_id")
    handle = subscriptions_of("chat")[0].handle

    [refused] = [
        answer
        for batch in ([auth.request(auth.transactions[UUID(int=2)])], auth.published[:1])
        for sent in handle(batch).answers
        if (answer := json.loads(sent.value))["status"] == "FAIL"
    ]
    assert refused["heldBy"] == [{"ownerSignupId": str(UUID(int=2)), "version": auth.records[2].version}]
    auth.hear(refused)

    for message in auth.due:
        for sent in handle([message]).answers:
            auth.hear(json.loads(sent.value))
    assert {each.light for each in auth.transactions.values()} == {"SUCCESS"}
