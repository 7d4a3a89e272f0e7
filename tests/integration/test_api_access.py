"""Access to a sign-up through the API, and requests that are refused before their content is read."""

import json
import time
from uuid import UUID, uuid4

import pytest
from asgiref.testing import ApplicationCommunicator

from authsvc import tickets
from authsvc.api.application import SignUpApi
from authsvc.api.signup_requests import BODY_MAX
from authsvc.models import SignUp
from authsvc.signups.events import NEW_USER_REQUESTED
from eventbus.topics import ensure_topics
from signup_sync.front import tickets as front
from tests.conftest import Person, new_person
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]
JSON = "application/json"


@pytest.fixture(autouse=True)
def own_topics(settings):
    settings.KAFKA_PREFIX = f"api-access-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])


@pytest.fixture
async def api():
    running = SignUpApi()
    yield running
    await running.close()


class Answer:
    def __init__(self, start: dict, body: bytes) -> None:
        self.status: int = start["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        self.body = body

    @property
    def document(self) -> dict:
        return json.loads(self.body)


async def ask(
    api: SignUpApi,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    query: bytes = b"",
    scheme: str = "https",
    **headers: str,
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query, "scheme": scheme,
        "client": ("203.0.113.9", 1), "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip
    client = ApplicationCommunicator(api, scope)
    await client.send_input({"type": "http.request", "body": body, "more_body": False})
    start, text = await client.receive_output(timeout=PATIENCE), b""
    while (part := await client.receive_output(timeout=PATIENCE)).get("more_body"):
        text += part["body"]
    await client.wait(timeout=PATIENCE)
    return Answer(start, text + part.get("body", b""))


async def post(api: SignUpApi, form: dict, **headers: str) -> Answer:
    return await ask(api, "POST", "/user", json.dumps(form).encode(), **{"content_type": JSON} | headers)


async def taken(api: SignUpApi, person: Person) -> tuple[UUID, str]:
    """The id of a sign-up, and its ticket."""
    signup_id = uuid4()
    answer = await post(api, person.form, idempotency_key=str(signup_id))
    assert answer.status == 202
    return signup_id, answer.headers["signup-ticket"]


@pytest.mark.parametrize("what", ["", "/events"])
async def test_a_sign_up_is_seen_with_its_own_ticket_only(api, settings, monkeypatch, what):
    settings.TICKET_MAX_AGE = 100
    signup_id, ticket = await taken(api, new_person())
    _, of_another = await taken(api, new_person())
    path = f"/user/signups/{signup_id}{what}"
    refused = ["", "nonsense", str(signup_id), of_another, front.page_ticket(signup_id, "browser"), ticket[:-1]]
    answers = [await ask(api, "HEAD", path, signup_ticket=each) for each in refused]
    answers.append(await ask(api, "HEAD", path))
    answers.append(await ask(api, "HEAD", path, query=f"ticket={ticket}&signup-ticket={ticket}".encode()))
    answers.append(await ask(api, "HEAD", path, authorization=f"Bearer {ticket}", cookie=f"signup-ticket={ticket}"))
    assert {answer.status for answer in answers} == {404}
    assert (await ask(api, "HEAD", path, signup_ticket=ticket)).status == 200
    later = time.time() + 102
    monkeypatch.setattr(time, "time", lambda: later)
    assert (await ask(api, "HEAD", path, signup_ticket=ticket)).status == 404


async def test_an_unknown_sign_up_is_answered_like_another_persons_sign_up(api):
    signup_id, _ = await taken(api, new_person())
    unknown = uuid4()
    there = await ask(api, "GET", f"/user/signups/{signup_id}", signup_ticket="nonsense")
    not_there = await ask(api, "GET", f"/user/signups/{unknown}", signup_ticket=tickets.issue_ticket(unknown))
    assert (there.status, there.body) == (not_there.status, not_there.body)


async def test_nobody_signs_up_an_administrator_without_a_staff_session(api):
    for cookie in ("", "sessionid=made-up; csrftoken=made-up"):
        person = new_person()
        answer = await post(api, person.form | {"role": "ROLE_ADMIN"}, cookie=cookie, x_csrftoken="made-up")
        assert answer.status == 403
        assert not await SignUp.objects.filter(email=person.email).aexists()


async def test_a_key_with_different_content_is_refused(api):
    person, key = new_person(), str(uuid4())
    assert (await post(api, person.form, idempotency_key=key)).status == 202
    assert (await post(api, person.form, idempotency_key=key)).status == 202
    for change in (
        {"userName": "Other"},
        {"email": "other@example.org"},
        {"userId": "other"},
        {"userPw": "0ther words!"},
    ):
        assert (await post(api, person.form | change, idempotency_key=key)).status == 409, change
    assert await SignUp.objects.filter(email=person.email).acount() == 1


@pytest.mark.parametrize("key", ["", "1", "nonsense", "00000000-0000-0000-0000-00000000000g"])
async def test_a_key_that_is_no_uuid_is_refused(api, key):
    person = new_person()
    assert (await post(api, person.form, idempotency_key=key)).status == 400
    assert not await SignUp.objects.filter(email=person.email).aexists()


async def test_a_body_is_measured_before_it_is_read(api):
    fitting = b'{"userId": "%s"}' % (b"x" * (BODY_MAX - len(b'{"userId": ""}')))
    assert len(fitting) == BODY_MAX
    assert (await ask(api, "POST", "/user", fitting, content_type=JSON)).status == 422
    assert (await ask(api, "POST", "/user", fitting + b" ", content_type=JSON)).status == 413


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_content_type_other_than_json_is_refused(api, content_type):
    headers = {} if content_type is None else {"content_type": content_type}
    answer = await ask(api, "POST", "/user", json.dumps(new_person().form).encode(), **headers)
    assert answer.status == 415


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/user", "OPTIONS, POST"), ("POST", f"/user/signups/{UUID(int=1)}", "GET, HEAD, OPTIONS")],
)
async def test_an_unsupported_method_is_refused_and_the_supported_ones_are_named(api, method, path, allowed):
    answer = await ask(api, method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


async def test_in_production_plain_http_is_for_the_front_only(api, settings):
    settings.SECURE_SSL_REDIRECT = True
    person = new_person()
    assert (await ask(api, "POST", "/user", json.dumps(person.form).encode(), scheme="http")).status == 403
    forged = {"signup_address": "203.0.113.9", "content_type": JSON}
    body = json.dumps(person.form).encode()
    assert (await ask(api, "POST", "/user", body, scheme="http", **forged)).status == 403
    by_the_front = {"signup_address": front.signed_by_front(), "content_type": JSON}
    assert (await ask(api, "POST", "/user", body, scheme="http", **by_the_front)).status == 202
    assert (await ask(api, "POST", "/user", json.dumps(new_person().form).encode(), content_type=JSON)).status == 202
