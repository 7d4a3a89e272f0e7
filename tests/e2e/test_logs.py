"""The logs of the running roles: only JSON, and one trace for one sign-up in all of them."""

import json
from typing import Any
from uuid import uuid4

import pytest

from signup_sync.participants import PARTICIPANTS
from tests.client import opened, produce_invalid, request, sign_up, topic_of
from tests.conftest import Person, new_person
from tests.e2e.test_page import sign_up_in
from tests.stack import RoleProcess, Stack
from tests.waiting import eventually, must_hold

pytestmark = pytest.mark.needs("application")

WORKERS = (*PARTICIPANTS, "auth-results")


@pytest.fixture(autouse=True)
def before(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the web process's earlier lines: mails of other tests go to the same log."""
    monkeypatch.setitem(globals(), "BEGIN", {role.name: len(role.log()) for role in web_roles(stack)})


BEGIN: dict[str, int] = {}


def lines(role: RoleProcess) -> list[dict[str, Any]]:
    """Fails unless every line is a JSON object."""
    whole, _, _being_written = role.log()[BEGIN.get(role.name, 0) :].rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def said_of(signup_id: str, *roles: RoleProcess) -> list[str]:
    """The texts of the lines about this sign-up; each of them names its trace too."""
    about = [line for role in roles for line in lines(role) if signup_id in line.get("signup_id", "")]
    for line in about:
        must_hold(signup_id.replace("-", "") in line["trace_id"], f"each line names its trace: {line}")
    return [line["event"] for line in about]


def web_roles(stack: Stack) -> list[RoleProcess]:
    return [role for name, role in stack.roles.items() if name.startswith("web") or name in ("auth-1", "auth-2")]


def test_one_sign_up_is_one_trace_in_every_role(stack: Stack, person: Person):
    signup_id, caller = str(uuid4()), uuid4().hex
    sign_up(stack, person.form, Idempotency_Key=signup_id, traceparent=f"00-{caller}-{'1' * 16}-01")

    for role in WORKERS:
        eventually(lambda role=role: said_of(signup_id, stack.roles[role]), what=f"{role} says something of it")
    assert said_of(signup_id, *web_roles(stack)) == [
        f"POST belongs to the caller's trace {caller}", "sign-ups accepted: 1",
    ]  # fmt: skip
    # More than once if the machine is so slow that the relay sends the request again.
    assert set(said_of(signup_id, stack.roles["chat"])) == {"sign-ups judged SUCCESS: 1"}
    decided = [f"lights decided, {service} SUCCESS: 1" for service in PARTICIPANTS]
    eventually(
        lambda: (
            sorted(said_of(signup_id, stack.roles["auth-results"])) == sorted([*decided, "transactions complete: 1"])
        ),
        what="auth says once what it decided",
    )
    traces = {
        message.headers["traceparent"].decode().split("-")[1]
        for topic in ("user.newUser.req", "user.newUser.res")
        for message in topic_of(stack, topic)
        if signup_id.encode() in message.value
    }
    assert traces == {signup_id.replace("-", "")}


def test_the_answer_names_the_trace_and_a_repeated_request_stays_in_it(stack: Stack, person: Person):
    signup_id = str(uuid4())
    for _ in range(2):
        with opened(stack, "POST", "/user", person.form, Idempotency_Key=signup_id) as response:
            assert response.headers["Traceresponse"].split("-")[1] == signup_id.replace("-", "")
    # The second request may have come to the instance that stands first.
    assert sorted(said_of(signup_id, *web_roles(stack))) == [
        "requests that repeated a sign-up: 1", "sign-ups accepted: 1",
    ]  # fmt: skip


@pytest.mark.needs("chromium")
def test_the_browsers_request_is_in_the_trace(page, stack: Stack, person: Person):
    posts = []
    # Checks while somebody types don't belong to a sign-up yet.
    page.on("request", lambda each: posts.append(each) if each.method == "POST" and "check" not in each.url else None)
    sign_up_in(page, person)
    page.wait_for_url("**/login/")
    [(signup_id,)] = stack.query("auth", f"SELECT id FROM authsvc_signup WHERE user_id = '{person.user_id}'")
    trace = str(signup_id).replace("-", "")
    assert [post.headers["traceparent"].split("-")[1] for post in posts] == [trace]
    texts = [line["event"] for role in web_roles(stack) for line in lines(role) if trace in line.get("trace_id", "")]
    assert texts == ["sign-ups accepted: 1"]


def test_every_line_of_every_role_is_json_also_of_what_goes_wrong(stack: Stack, person: Person):
    trace = uuid4().hex
    produce_invalid(stack, "user.newUser.req", b"garbage", key="garbage", traceparent=f"00-{trace}-{'1' * 16}-01")
    request(stack, "POST", "/user", b"{", Content_Type="application/json")
    request(stack, "GET", "/nowhere/")
    request(stack, "GET", "/signup/status/guessed-ticket/")
    sign_up(stack, person.form)
    sign_up(stack, new_person().form | {"email": person.email})

    def put_aside() -> list[dict[str, Any]]:
        said = [line for line in lines(stack.roles["chat"]) if line.get("trace_id") == trace]
        return [line for line in said if line["event"].startswith("dead-lettered")]

    [aside] = eventually(put_aside, what="chat logs the dead letter")
    assert (aside["level"], aside["group"]) == ("error", "chat")
    for role in stack.roles.values():
        said = lines(role)
        assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in said), role.name
        assert said or role in web_roles(stack), role.name
    assert "guessed-ticket" not in "".join(role.log() for role in stack.roles.values())
