"""The API as its clients see it, through the gateway, over the whole installation."""

import json
import re
import shutil
import subprocess
import threading
import time
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener
from uuid import UUID, uuid4

import pytest

from signup_sync.participants import PARTICIPANTS
from tests.client import SERVICES, Answer, events, opened, produce, produce_invalid, request, sign_up, topic_of
from tests.conftest import Person, new_person
from tests.stack import Stack, UserRow
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")

ALL_GREEN = dict.fromkeys(SERVICES, "SUCCESS")


def row(person: Person) -> UserRow:
    return UserRow(person.user_id, person.email, person.user_name, "ROLE_USER")


def post(stack: Stack, form: Any, **headers: str) -> Answer:
    return request(stack, "POST", "/user", form, **headers)


def state(stack: Stack, answer: Answer) -> dict[str, Any]:
    """The present state of a sign-up that `post` began."""
    shown = request(stack, "GET", answer.headers["Location"], Signup_Ticket=answer.headers["Signup-Ticket"])
    assert shown.status == 200
    return shown.json


def settled(stack: Stack, answer: Answer) -> dict[str, Any]:
    return eventually(lambda: (now := state(stack, answer))["complete"] and now, what="the sign-up is complete")


def statuses(of: dict[str, Any]) -> dict[str, str]:
    return {service: light["status"] for service, light in of["services"].items()}


# --- The stream -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_shows_the_stream_of_the_contract_byte_for_byte(stack: Stack, person: Person):
    signup_id = str(uuid4())
    command = [
        "curl", "-sS", "-N", "-i", "--max-time", "30", f"{stack.base_url}/user", "-H", "Accept: text/event-stream",
        "-H", "Content-Type: application/json", "-H", f"Idempotency-Key: {signup_id}", "-d", json.dumps(person.form),
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    head, _, text = output.partition("\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["signup-ticket"]

    def event(version: int, lights: dict[str, str], *changed: str) -> str:
        complete = "false" if "PENDING" in lights.values() else "true"
        services = ",".join(f'"{service}":{{"status":"{status}"}}' for service, status in lights.items())
        names = ",".join(f'"{service}"' for service in changed)
        return (
            f'event: status\nid: {version}\ndata: {{"signupId":"{signup_id}","version":{version},'
            f'"complete":{complete},"services":{{{services}}},"changed":[{names}]}}\n\n'
        )

    orange = dict.fromkeys(SERVICES, "PENDING")
    lights, version = orange | {"auth": "SUCCESS"}, 2
    begin = "retry: 2000\n\n" + event(1, orange, *SERVICES) + event(2, lights, "auth")
    assert text.startswith(begin)
    # The participants answer in any order, and several of them perhaps in one event.
    rest = text.removeprefix(begin)
    for told in re.findall(r"^data: (.*)", rest, re.MULTILINE):
        latest = json.loads(told)
        changed = [service for service in PARTICIPANTS if service in latest["changed"]]
        assert version < latest["version"] <= version + len(changed)
        assert {lights[service] for service in changed} == {"PENDING"}
        version, lights = latest["version"], lights | dict.fromkeys(changed, "SUCCESS")
        expected = event(version, lights, *changed)
        assert rest.startswith(expected)
        rest = rest.removeprefix(expected)
    assert (rest, lights) == ("", ALL_GREEN)


def test_every_service_keeps_the_user(stack: Stack, person: Person):
    assert sign_up(stack, person.form)[-1].statuses == ALL_GREEN
    for service in SERVICES:
        assert row(person) in stack.rows(service)


def test_a_client_that_does_not_accept_a_stream_gets_the_state_and_its_location(stack: Stack, person: Person):
    answer = post(stack, person.form)
    assert answer.status == 202
    assert answer.headers["Location"] == f"/user/signups/{answer.json['signupId']}"
    assert answer.json["services"]["auth"] == {"status": "SUCCESS"}
    assert statuses(settled(stack, answer)) == ALL_GREEN


def test_clients_that_ask_for_it_get_the_duration_of_each_light(stack: Stack, person: Person):
    events = sign_up(stack, person.form, Prefer="took")
    took = events[-1].data["took"]
    assert set(took) == set(SERVICES)
    assert all(milliseconds >= 0 for milliseconds in took.values())


def test_a_client_that_reconnects_gets_the_unseen_changes_and_204_after_the_end(stack: Stack, person: Person):
    answer = post(stack, person.form)
    end = settled(stack, answer)
    path, ticket = answer.headers["Location"] + "/events", answer.headers["Signup-Ticket"]
    with opened(stack, "GET", path, Signup_Ticket=ticket, Last_Event_ID="1") as response:
        [last] = events(response)
    assert (last.id, last.data["complete"]) == (end["version"], True)
    assert set(last.data["changed"]) == set(SERVICES)
    seen = request(stack, "GET", path, Signup_Ticket=ticket, Last_Event_ID=str(end["version"]))
    assert (seen.status, seen.body) == (204, b"")


# --- Duplicates -----------------------------------------------------------------------------------------------


def test_a_user_id_that_auth_has_is_refused_and_the_strangers_input_is_stored_nowhere(stack: Stack, person: Person):
    sign_up(stack, person.form)
    stranger = new_person()
    refused = sign_up(stack, stranger.form | {"userId": person.user_id.upper()})[-1]
    assert refused.statuses == dict.fromkeys(SERVICES, "FAIL")
    assert {light["reason"] for light in refused.data["services"].values()} == {"duplicate: userId"}
    for service in SERVICES:
        assert stranger.email not in {each.email for each in stack.rows(service)}


def test_if_only_the_email_is_taken_every_red_light_names_it(stack: Stack, person: Person):
    sign_up(stack, person.form)
    refused = sign_up(stack, new_person().form | {"email": person.email.upper()})[-1]
    assert {light.get("reason") for light in refused.data["services"].values()} == {"duplicate: email"}


def test_a_user_that_only_chat_already_had_turns_only_chat_red(stack: Stack, person: Person):
    produce(stack, "user.newUser.req", requested(person, services=["chat"]), key=person.user_id)
    eventually(lambda: row(person) in stack.rows("chat"))
    assert row(person) not in stack.rows("customer")
    shown = sign_up(stack, person.form)[-1]
    assert statuses(shown.data) == ALL_GREEN | {"chat": "FAIL"}
    assert shown.data["services"]["chat"]["reason"] == "duplicate: userId"
    assert row(person) in stack.rows("customer")


def test_a_refused_sign_up_restores_the_existing_user_that_customer_lost(stack: Stack, person: Person):
    sign_up(stack, person.form)
    stack.query("customer", f"DELETE FROM customersvc_customer WHERE email = '{person.email}'")
    again = sign_up(stack, new_person().form | {"userId": person.user_id})[-1]
    assert statuses(again.data) == dict.fromkeys(SERVICES, "FAIL") | {"customer": "SUCCESS"}
    assert row(person) in stack.rows("customer")


# --- Redelivery, overtaking, repetition ---------------------------------------------------------------------------


def requested(person: Person, **fields: Any) -> dict[str, Any]:
    signup_id = str(uuid4())
    return {
        "signupId": signup_id, "ownerSignupId": signup_id, "userId": person.user_id, "email": person.email,
        "userName": person.user_name, "role": "ROLE_USER", "occurredAt": "2026-01-01T00:00:00Z", "attempt": 1,
    } | fields  # fmt: skip


def test_a_redelivered_request_changes_no_light(stack: Stack, person: Person):
    answer = post(stack, person.form)
    before = settled(stack, answer)
    # On a slow machine, the relay may have sent the request again.
    event, *_ = [
        message for message in topic_of(stack, "user.newUser.req") if person.user_id == (message.key or b"").decode()
    ]
    answered = len(answers_to(stack, before["signupId"]))
    produce(stack, "user.newUser.req", event.value, key=person.user_id)
    eventually(lambda: len(answers_to(stack, before["signupId"])) >= answered + len(PARTICIPANTS))
    assert {each["status"] for each in answers_to(stack, before["signupId"])} == {"SUCCESS"}
    assert state(stack, answer) == before


def answers_to(stack: Stack, signup_id: str) -> list[dict[str, Any]]:
    answers = [json.loads(each.value) for each in topic_of(stack, "user.newUser.res") if each.value.startswith(b"{")]
    return [each for each in answers if each.get("signupId") == signup_id]


def test_a_strangers_attempt_that_overtakes_does_not_turn_the_owner_red(stack: Stack, person: Person):
    owner = str(uuid4())
    produce(stack, "user.newUser.req", requested(person, ownerSignupId=owner), key=person.user_id)
    for service in PARTICIPANTS:
        eventually(lambda service=service: row(person) in stack.rows(service))
    assert sign_up(stack, person.form, Idempotency_Key=owner)[-1].statuses == ALL_GREEN


def test_a_double_click_makes_one_sign_up(stack: Stack, person: Person):
    signup_id = str(uuid4())
    answers: list[Answer] = []
    clicks = [
        threading.Thread(target=lambda: answers.append(post(stack, person.form, Idempotency_Key=signup_id)))
        for _ in range(6)
    ]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    assert [answer.status for answer in answers] == [202] * 6
    assert {answer.json["signupId"] for answer in answers} == {signup_id}
    assert statuses(settled(stack, answers[0])) == ALL_GREEN
    assert len(stack.query("auth", f"SELECT id FROM authsvc_signup WHERE email = '{person.email}'")) == 1


def test_a_retry_after_a_lost_answer_joins_the_running_sign_up(stack: Stack, person: Person):
    signup_id = str(uuid4())
    with opened(stack, "POST", "/user", person.form, Accept="text/event-stream", Idempotency_Key=signup_id) as response:
        assert next(events(response)).id == 1
    begun = time.monotonic()
    joined = sign_up(stack, person.form, Idempotency_Key=signup_id)
    assert time.monotonic() - begun < 10, "no heartbeat was needed to see the end"
    assert joined[-1].statuses == ALL_GREEN
    assert joined[0].id != 1, "the present state comes at once"


@pytest.mark.parametrize("changed", ["userId", "email", "userName", "userPw"])
def test_the_same_key_with_other_content_is_409(stack: Stack, person: Person, changed: str):
    signup_id = str(uuid4())
    assert post(stack, person.form, Idempotency_Key=signup_id).status == 202
    other = person.form | {changed: "x" + person.form[changed]}
    answer = post(stack, other, Idempotency_Key=signup_id)
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    same = {"email": person.email.upper(), "userId": person.user_id.upper()}
    assert post(stack, person.form | same, Idempotency_Key=signup_id).status == 202


# --- Tickets ------------------------------------------------------------------------------------------------------


def test_a_sign_up_is_shown_to_its_own_ticket_only(stack: Stack, person: Person):
    one, other = post(stack, person.form), post(stack, new_person().form)
    for path in (one.headers["Location"], one.headers["Location"] + "/events"):
        for ticket in (None, "guess", other.headers["Signup-Ticket"], one.headers["Signup-Ticket"] + "x"):
            headers = {"Signup_Ticket": ticket} if ticket else {}
            assert request(stack, "GET", path, **headers).status == 404
        assert request(stack, "GET", path, Authorization=f"Bearer {one.headers['Signup-Ticket']}").status == 404
        assert request(stack, "GET", path, Signup_Ticket=one.headers["Signup-Ticket"]).status in (200, 204)
    assert request(stack, "GET", f"/user/signups/{UUID(int=5)}").status == 404


# --- Bad input ----------------------------------------------------------------------------------------------------


def wrong(**fields: Any) -> dict[str, Any]:
    return new_person().form | fields


@pytest.mark.parametrize(
    ("body", "status", "pointers"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"\xff\xff", 400, None),
        (wrong(userId=None), 422, ["/userId"]),
        (wrong(userId=5), 422, ["/userId"]),
        (wrong(userId="a" * 1000), 422, ["/userId"]),
        (wrong(userId="smile🙂"), 422, ["/userId"]),
        (wrong(userName="a\x00b"), 422, ["/userName"]),
        (wrong(userPw="a\x00bcdefghij"), 422, ["/userPw"]),
        (wrong(userPw="x1!"), 422, ["/userPw"]),
        (wrong(email="nowhere"), 422, ["/email"]),
        (wrong(nickname="x"), 422, ["/nickname"]),
        ({"userId": "lonely"}, 422, ["/email", "/userName", "/userPw"]),
        (wrong(role="ROLE_ADMIN"), 403, None),
        (wrong(role="ROOT"), 422, ["/role"]),
        (b'{"\\ud800": 1}', 422, ["/userId", "/email", "/userName", "/userPw", "/?"]),
        (b'{"userId": "' + b"a" * 70_000 + b'"}', 413, None),
        (b'{"userId": "' + b"a" * 10_000_000 + b'"}', 413, None),
    ],
)
def test_bad_input_is_refused_with_a_problem_document(stack: Stack, body: Any, status: int, pointers: Any):
    before = stack.rows("auth")
    answer = post(stack, body, Content_Type="application/json")
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert (problem["status"], bool(problem["title"]), bool(problem["detail"])) == (status, True, True)
    assert pointers is None or [error["pointer"] for error in problem["errors"]] == pointers
    assert stack.rows("auth") == before


@pytest.mark.parametrize("headers", [{}, {"Content_Type": "text/plain"}])
def test_a_body_of_another_type_is_415(stack: Stack, headers: dict[str, str]):
    assert post(stack, b"{}", **headers).status == 415


def test_an_idempotency_key_that_is_no_uuid_is_400(stack: Stack, person: Person):
    assert post(stack, person.form, Idempotency_Key="mine").status == 400


def test_staff_with_the_permission_and_djangos_csrf_token_may_sign_up_an_administrator(stack: Stack):
    staff, person = new_person(), new_person()
    stack.manage(
        "createsuperuser", "--noinput", "--user_id", staff.user_id, "--email", staff.email,
        DJANGO_SUPERUSER_PASSWORD=staff.password,
    )  # fmt: skip
    cookies = log_in(stack, staff)
    admin = person.form | {"role": "ROLE_ADMIN"}
    session = "; ".join(f"{name}={value}" for name, value in cookies.items())
    assert post(stack, admin, Cookie=session).status == 403
    answer = post(stack, admin, Cookie=session, X_CSRFToken=cookies["csrftoken"])
    assert answer.status == 202, answer.body
    assert statuses(settled(stack, answer)) == ALL_GREEN
    assert row(person)._replace(role="ROLE_ADMIN") in stack.rows("customer")
    [is_staff] = stack.query("auth", f"SELECT is_staff FROM authsvc_user WHERE email = '{person.email}'")[0]
    assert not is_staff


def log_in(stack: Stack, person: Person) -> dict[str, str]:
    """The cookies of a session."""
    jar = CookieJar()
    browser = build_opener(HTTPCookieProcessor(jar))
    with browser.open(f"{stack.base_url}/login/", timeout=30):
        token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
    fields = {"username": person.user_id, "password": person.password, "csrfmiddlewaretoken": token}
    with browser.open(f"{stack.base_url}/login/", urlencode(fields).encode(), timeout=30) as page:
        assert page.url.endswith("/account/")
    return {cookie.name: cookie.value or "" for cookie in jar}


def test_a_user_id_of_hangul_is_accepted(stack: Stack):
    person = new_person()
    name = "김민수" + "".join(chr(0xAC00 + int(digit, 16)) for digit in person.user_id[-12:])
    assert sign_up(stack, person.form | {"userId": name})[-1].statuses == ALL_GREEN
    assert name in {each.user_id for each in stack.rows("chat")}


def test_another_method_is_405_and_another_path_404(stack: Stack):
    refused = request(stack, "GET", "/user")
    assert (refused.status, refused.headers["Allow"]) == (405, "OPTIONS, POST")
    assert request(stack, "GET", "/user/nobody").status == 404


@pytest.mark.parametrize("topic", ["user.newUser.req", "user.newUser.res"])
def test_garbage_in_a_topic_is_dead_lettered_and_the_next_message_is_handled(stack: Stack, person: Person, topic: str):
    groups = ("auth",) if topic.endswith("res") else PARTICIPANTS
    garbage = f"garbage {uuid4()}".encode()
    produce_invalid(stack, topic, garbage, key=person.user_id)
    assert sign_up(stack, person.form)[-1].statuses == ALL_GREEN
    for group in groups:
        eventually(
            lambda group=group: any(letter.value == garbage for letter in topic_of(stack, f"{topic}.{group}.dlt"))
        )
