"""`manage.py reconcile`, with the participants' consumers on the broker of the chosen stack."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from authsvc.lights import Status, Verdict
from authsvc.models import SignUp, User
from authsvc.reconcile_events import RECONCILE_ANSWERED, RECONCILE_REQUESTED
from authsvc.services import NewSignUp, ReportedVerdict, apply_verdicts, register_users
from chatsvc.models import ChatUser
from customersvc.models import Customer
from eventbus.subscriptions import subscriptions_of
from eventbus.topics import ensure_topics
from tests.broker import consuming

pytestmark = [
    pytest.mark.django_db(databases=["default", "chat", "customer"], transaction=True),
    pytest.mark.needs("broker"),
]
NOTHING = {"missing": 0, "different": 0, "conflicting": 0, "superfluous": 0}


@pytest.fixture(autouse=True, scope="module")
def participants() -> Iterator[None]:
    """Chat and customer, each with its consumer of pages; joining their groups is the slow part, so once for all."""
    with override_settings(KAFKA_PREFIX=f"reconcile-{uuid4()}-"), ExitStack() as running:
        ensure_topics([RECONCILE_REQUESTED, RECONCILE_ANSWERED])
        for service in ("chat", "customer"):
            [_, pages] = subscriptions_of(service)
            running.enter_context(consuming(pages))
        yield


def sign_up(*names: str) -> list[UUID]:
    """Users whose sign-up is complete, and whom both participants keep."""
    batch = [
        NewSignUp(
            signup_id=uuid4(), user_id=name, email=f"{name}@example.org", user_name=name, role="ROLE_USER",
            password="not a hash",
        )
        for name in names
    ]  # fmt: skip
    register_users(batch)
    for new in batch:
        apply_verdicts([ReportedVerdict(new.signup_id, Verdict(name, Status.SUCCESS)) for name in ("chat", "customer")])
        for model in (ChatUser, Customer):
            model.objects.create(
                signup_id=new.signup_id, owner_signup_id=new.signup_id, user_id=new.user_id, email=new.email,
                user_name=new.user_name,
            )  # fmt: skip
    return [new.signup_id for new in batch]


def reconcile(*arguments: str) -> tuple[dict[str, Any], str]:
    """The services of the report, and what stands on stderr: nothing where the exit code is 0."""
    out = StringIO()
    try:
        call_command("reconcile", "--json", "--timeout=20", *arguments, stdout=out)
        problems = ""
    except CommandError as error:
        problems = str(error)
    return json.loads(out.getvalue())["services"], problems


def found(report: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((finding["kind"], finding["userId"]) for finding in report["findings"])


def rows(model: type[ChatUser] | type[Customer]) -> set[tuple[Any, ...]]:
    return set(model.objects.values_list("owner_signup_id", "user_id", "user_id_key", "email", "user_name", "role"))


def records() -> set[tuple[Any, ...]]:
    return set(User.objects.values_list("owner_signup_id", "user_id", "user_id_key", "email", "user_name", "role"))


def test_scale():
    import time
    N = 10000
    ids = [uuid4() for _ in range(N)]
    def make(model, **f):
        rows = []
        for n, i in enumerate(ids):
            u = model(user_id=f"user-{n}", email=f"user-{n}@example.org", user_name="x", owner_signup_id=i)
            u.normalize(); rows.append(u)
        model.objects.bulk_create(rows, batch_size=1000)
    make(User)
    make(ChatUser)
    began = time.monotonic()
    services, problems = reconcile("--heal", "--service", "chat")
    t1 = time.monotonic() - began
    began = time.monotonic()
    services, problems2 = reconcile("--heal")
    t2 = time.monotonic() - began
    print("AGREE", t1, "HEAL ALL", t2, problems, problems2, services["customer"]["healed"])
    assert 0
