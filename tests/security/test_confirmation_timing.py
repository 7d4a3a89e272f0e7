"""With SIGNUP_CONFIRM=mail, neither an answer nor its duration reveals whether the user existed before."""

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

import pytest
from scipy.stats import ks_2samp

from tests.client import filled_form
from tests.conftest import Person, new_person, new_stack
from tests.plugin import Backing
from tests.stack import Stack

pytestmark = [pytest.mark.alone, pytest.mark.needs("application")]

# The probability that a comparison of equal times fails by chance. A failed one is repeated once with other people, so
# the test fails by chance once in 10,000 runs.
ALPHA = 0.01
ROUNDS = 2
WARM_UP = 20
# Parts that differ between any two sign-ups: signed tickets, traces, UUIDs and times.
TIMES = ("date", "expires")
OF_ONE_ALONE = re.compile(
    rb"expires=[^;]+|[\w.-]+:[\w-]+:[\w-]{20,}|00-[0-9a-f]{32}-[0-9a-f]{16}-01|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)
# Random for each page and browser.
CSRF_TOKEN = re.compile(rb'(?<=csrftoken=)\w{32}|(?<=csrfmiddlewaretoken" value=")\w{64}')
MAKE_USERS = """
import json
from authsvc.models import User
users = [User(user_id=name, email=email, user_name="Kim", password="!") for name, email in json.loads({people!r})]
for user in users:
    user.normalize()
User.objects.bulk_create(users)
"""
MAKE_LINKS = """
import json
from uuid import uuid4
from django.contrib.auth.hashers import make_password
from authsvc.signups.confirmation import save_unconfirmed, token_for
from authsvc.signups.registration import NewSignUp
hashed = make_password("correct horse 9")
for name, email in json.loads({people!r}):
    typed = NewSignUp(signup_id=uuid4(), user_id=name, email=email, user_name="Kim", role="ROLE_USER", password=hashed)
    print(token_for(save_unconfirmed(typed)[0]))
"""
# A cheap hash, so that no difference is hidden, and mails that cost this process nothing, to avoid noise.
SETTINGS = {
    "SIGNUP_CONFIRM": "mail",
    "EMAIL_URL": "consolemail://",
    "ARGON2_MEMORY_KIB": "512",
    "ARGON2_TIME_COST": "1",
}
Seen = tuple[int, list[tuple[str, bytes]], bytes]


@pytest.fixture(scope="module")
def stack(backing: Backing) -> Iterator[Stack]:
    with new_stack(backing, **SETTINGS) as stack:
        yield stack


class Client:
    """One connection that stays open, with its cookies, and what each answer looked like and took."""

    def __init__(self, stack: Stack) -> None:
        address = urlsplit(stack.base_url)
        self._connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
        self._cookies: dict[str, str] = {}

    def close(self) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        read: Callable[[HTTPResponse], bytes] = HTTPResponse.read,
        **headers: str,
    ) -> tuple[Seen, float]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        began = time.perf_counter()
        self._connection.request(method, path, body, sent)
        response = self._connection.getresponse()
        text = read(response)
        took = time.perf_counter() - began
        for header in response.headers.get_all("Set-Cookie") or ():
            self._cookies |= {name: cookie.value for name, cookie in SimpleCookie(header).items()}
        headers = [
            (name.lower(), value.encode()) for name, value in response.headers.items() if name.lower() not in TIMES
        ]
        return (response.status, sorted(headers), text), took


def by_api(client: Client, person: Person) -> tuple[Seen, float]:
    return client.ask("POST", "/user", json.dumps(person.form), Content_Type="application/json")


def by_form(client: Client, person: Person) -> tuple[Seen, float]:
    (_status, _headers, page), _took = client.ask("GET", "/signup/")
    form = urlencode(filled_form(page.decode(), person))
    return client.ask(
        "POST", "/signup/", form, Content_Type="application/x-www-form-urlencoded", Accept="application/json"
    )


def without_ids(seen: Seen) -> Seen:
    status, headers, text = seen
    return status, [(name, OF_ONE_ALONE.sub(b"", value)) for name, value in headers], OF_ONE_ALONE.sub(b"", text)


def by_link(client: Client, token: str) -> tuple[Seen, float]:
    body = json.dumps({"token": token, "userPw": "not the passw0rd"})
    return client.ask("POST", "/user/confirmations", body, Content_Type="application/json")


def listed(people: Iterable[Person]) -> str:
    return json.dumps([(person.user_id, person.email) for person in people])


def existing_and_new(stack: Stack, count: int) -> list[tuple[Person, str]]:
    """So many people with an account and as many without, in an order in which other load affects both kinds alike."""
    existing = [new_person() for _ in range(count)]
    stack.manage("shell", "-c", MAKE_USERS.format(people=listed(existing)))
    everybody = [(person, "existing") for person in existing] + [(new_person(), "new") for _ in range(count)]
    random.Random(count).shuffle(everybody)
    return everybody


def answer_alike(prepare: Callable[[], Sequence[tuple[Callable[[], tuple[Seen, float]], str]]]) -> Seen:
    """Return the one answer that both kinds get. Fails if the times differ significantly."""
    for _ in range(ROUNDS):
        took: dict[str, list[float]] = {"existing": [], "new": []}
        answers = []
        for ask, kind in prepare():
            seen, seconds = ask()
            took[kind].append(seconds)
            answers.append(without_ids(seen))
        assert [answer for answer in answers if answer != answers[0]] == []
        result = ks_2samp(took["existing"], took["new"])
        if result.pvalue > ALPHA:
            return answers[0]
    pytest.fail(f"the times of new and existing users differ: {result}")


@pytest.mark.parametrize(("sign_up", "count"), [(by_api, 500), (by_form, 100)])
def test_new_and_existing_users_are_answered_alike(
    stack: Stack, sign_up: Callable[[Client, Person], tuple[Seen, float]], count: int
):
    client = Client(stack)
    for _ in range(WARM_UP):
        sign_up(client, new_person())
    status, _headers, text = answer_alike(
        lambda: [(partial(sign_up, client, person), kind) for person, kind in existing_and_new(stack, count)]
    )
    assert status in (200, 202)
    assert b'"awaiting":"confirmation"' in text.replace(b" ", b"")
    client.close()


def test_a_wrong_password_at_a_link_is_answered_alike_whether_or_not_the_user_was_taken_meanwhile(stack: Stack):
    client = Client(stack)

    def asks() -> list[tuple[Callable[[], tuple[Seen, float]], str]]:
        people = existing_and_new(stack, 100)
        tokens = stack.manage("shell", "-c", MAKE_LINKS.format(people=listed(person for person, _ in people)))
        found = zip(tokens.stdout.split()[-len(people) :], people, strict=True)
        return [(partial(by_link, client, token), kind) for token, (_person, kind) in found]

    for ask, _kind in asks()[:WARM_UP]:
        ask()
    status, _headers, text = answer_alike(asks)
    assert (status, json.loads(text)["type"]) == (422, "/problems/wrong-password")
    client.close()


def first_event(client: Client, person: Person) -> Seen:
    """The beginning of the stream of `POST /user`, up to the end of its first event."""
    headers = {"Content_Type": "application/json", "Accept": "text/event-stream"}
    seen, _took = client.ask("POST", "/user", json.dumps(person.form), read_event, **headers)
    return seen


def read_event(response: HTTPResponse) -> bytes:
    lines: list[bytes] = []
    while not (lines and lines[-1] == b"\n" and any(line.startswith(b"data:") for line in lines)):
        line = response.readline()
        assert line, lines
        lines.append(line)
    return b"".join(lines)


def without_script(client: Client, person: Person) -> Seen:
    """The response to the form without JavaScript, and the page of the lights to which it redirects."""
    (_status, _headers, page), _took = client.ask("GET", "/signup/")
    form = urlencode(filled_form(page.decode(), person))
    kind = "application/x-www-form-urlencoded"
    (status, headers, text), _took = client.ask("POST", "/signup/", form, Content_Type=kind, Accept="text/html")
    assert status == 303, text
    where = dict(headers)["location"].decode()
    (page_status, page_headers, lights), _took = client.ask("GET", where, Accept="text/html")
    assert page_status == 200
    told = [(name, CSRF_TOKEN.sub(b"", value)) for name, value in (*headers, *page_headers)]
    return status, told, text + CSRF_TOKEN.sub(b"", lights)


@pytest.mark.parametrize("sign_up", [first_event, without_script])
def test_a_stream_and_a_browser_without_script_begin_alike_for_everybody(
    stack: Stack, sign_up: Callable[[Client, Person], Seen]
) -> None:
    answers = []
    for person, _kind in existing_and_new(stack, 10):
        client = Client(stack)
        answers.append(without_ids(sign_up(client, person)))
        client.close()
    assert b"awaiting" in answers[0][2]
    assert [answer for answer in answers if answer != answers[0]] == []
