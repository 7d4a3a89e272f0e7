"""The API against docs/openapi.yaml: schemathesis sends unusual requests and checks each answer against the
document."""

import re
from collections.abc import Iterator
from html import unescape
from http.cookies import SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
)

from tests.client import request
from tests.conftest import Person, new_person, new_stack
from tests.contract.documents import states_of
from tests.e2e.test_api import log_in, post, settled
from tests.plugin import Backing
from tests.servers.process import ROOT
from tests.stack import Stack

pytestmark = pytest.mark.needs("application")

schema = schemathesis.openapi.from_path(ROOT / "docs" / "openapi.yaml")
bounded = settings(
    max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
NOT_PROMISED = [
    # A schema can't express the strength of a password or the class of a letter: a valid body may be answered 422.
    positive_data_acceptance,
    # These checks expect 401 or 403 without a ticket. The API answers 404, which does not reveal whether the sign-up
    # exists.
    ignored_auth,
    missing_required_header,
]


class Api(NamedTuple):
    """An application; a sign-up and a change that are over, by the name of their path parameter, with their tickets."""

    stack: Stack
    ids: dict[str, str]
    tickets: dict[str, str]
    statuses: set[int]


@pytest.fixture(scope="module")
def api(backing: Backing) -> Iterator[Api]:
    """Streams end soon here, because schemathesis needs complete answers."""
    with new_stack(backing, STREAM_MAX_AGE="1", SIGNUP_DEADLINE="0.1", STREAM_HEARTBEAT="0.3") as stack:
        person = new_person()
        answer = post(stack, person.form)
        signup_id = settled(stack, answer)["signupId"]
        change_id, ticket = change_name(stack, person)
        tickets = {"signupId": answer.headers["Signup-Ticket"], "changeId": ticket}
        yield Api(stack, {"signupId": signup_id, "changeId": change_id}, tickets, set())


def change_name(stack: Stack, person: Person) -> tuple[str, str]:
    """Change the name on the account page. Return the ID of the change, and its ticket, which is in a cookie."""
    cookies = "; ".join(f"{name}={value}" for name, value in log_in(stack, person).items())
    page = request(stack, "GET", "/account/", Cookie=cookies).body.decode()
    fields = {name: unescape(value) for name, value in re.findall(r'<input [^>]*name="(\w+)" value="([^"]*)"', page)}
    answer = request(
        stack, "POST", "/account/", urlencode(fields | {"user_name": "New"}).encode(), Cookie=cookies,
        Content_Type="application/x-www-form-urlencoded",
    )  # fmt: skip
    set_cookies = SimpleCookie("; ".join(answer.headers.get_all("Set-Cookie", [])))
    return answer.headers["Location"].split("/")[-2], set_cookies["change_ticket"].value


def check(case: Case, api: Api, *besides: Any) -> None:
    """Raises FailureGroup if the answer is not as documented. A stream's schema is that of a string; its events have
    one of their own.
    """
    response = case.call(base_url=api.stack.base_url, timeout=10)
    [content_type] = response.headers.get("content-type", [""])
    is_stream = content_type.startswith("text/event-stream")
    excluded = [*NOT_PROMISED, *besides, *([response_schema_conformance] if is_stream else [])]
    case.validate_response(response, excluded_checks=excluded)
    if is_stream:
        states_of(response.text)
    api.statuses.add(response.status_code)


@schema.parametrize()
@bounded
def test_every_answer_is_as_documented(case: Case, api: Api):
    check(case, api)


@schema.include(method="GET").parametrize()
@bounded
def test_every_answer_to_a_client_with_a_ticket_is_as_documented(case: Case, api: Api):
    [name] = re.findall(r"{(\w+)}", case.path)
    case.path_parameters = {name: api.ids[name]}
    case.headers["Signup-Ticket"] = api.tickets[name]
    # These two faults have been repaired.
    check(case, api, negative_data_rejection)


def test_the_generated_requests_were_answered_with_every_expected_status(api: Api):
    """The requests of the tests above got every kind of answer."""
    assert api.statuses >= {200, 202, 400, 404, 405, 415, 422}


def test_every_user_has_a_sign_up_and_every_sign_up_its_user(api: Api):
    """Each of auth's users has the sign-up that created it, and each sign-up has its user."""
    owners = api.stack.query("auth", "SELECT owner_signup_id FROM authsvc_user")
    assert owners
    assert set(owners) == set(api.stack.query("auth", "SELECT owner_signup_id FROM authsvc_signup"))
    assert set(owners) <= set(api.stack.query("auth", "SELECT id FROM authsvc_signup"))
