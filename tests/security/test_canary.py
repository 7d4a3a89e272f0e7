"""A canary password and canary tickets pass through every part that a sign-up can reach, and are found nowhere
afterwards.
"""

import json
import re
import secrets
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.cookiejar import CookieJar
from pathlib import Path

import confluent_kafka
import psycopg
import pytest
import redis

from tests.client import SERVICES, produce_invalid, read_topic
from tests.conftest import Person, new_person, new_stack
from tests.e2e.test_dead_letters import letter_of, refusing
from tests.e2e.test_serve import another_web
from tests.plugin import Backing
from tests.security.mail_servers import Inbox, mail_server
from tests.servers import free_port
from tests.servers.process import LOOPBACK
from tests.stack import Stack
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.needs("application")


@dataclass
class Trail:
    """The requests, and everything that came back."""

    password: str = field(default_factory=lambda: f"Canary-{secrets.token_hex(8)}-Pässword")
    tickets: set[str] = field(default_factory=set)
    # By action: status and text of the answer, without the headers that issue tickets.
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)


class Client:
    """A browser without scripts."""

    def __init__(self, base_url: str, trail: Trail) -> None:
        self._base_url = base_url
        self._trail = trail
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def send(
        self, what: str, path: str, body: Mapping[str, str] | bytes | None = None, **headers: str
    ) -> tuple[int, str]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = urllib.parse.urlencode(body).encode() if isinstance(body, Mapping) else body
        request = urllib.request.Request(urllib.parse.urljoin(self._base_url, path), data, sent)
        try:
            with self._opener.open(request, timeout=PATIENCE) as answer:
                status, text, got = answer.status, answer.read().decode(errors="replace"), answer.headers
        except urllib.error.HTTPError as refused:
            with refused:
                status, text, got = refused.code, refused.read().decode(errors="replace"), refused.headers
        if ticket := got.get("Signup-Ticket"):
            self._trail.tickets.add(ticket)
        self._trail.answers[what] = (status, text)
        return status, text

    def post_json(self, what: str, person: Person, **more: str) -> tuple[int, str]:
        headers = {"Content_Type": "application/json"} | more
        return self.send(what, "/user", json.dumps(person.form).encode(), **headers)

    def submit(self, what: str, path: str, **fields: str) -> tuple[int, str]:
        """Fills in the first form of the page and sends it."""
        _, page = self.send(f"{what}: the page", path)
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page))
        if ticket := hidden.get("ticket"):
            self._trail.tickets.add(ticket)
        return self.send(what, path, hidden | fields)


def sign_up_and_be_refused(client: Client, person: Person, trail: Trail) -> None:
    """Provoke success, and each error of the API and the form."""
    key = "01a218bf-547a-7357-92c1-0123456789ab"
    assert client.post_json("202", person, Idempotency_Key=key)[0] == 202
    ticket = next(iter(trail.tickets))
    location = f"/user/signups/{key}"
    eventually(lambda: '"complete":true' in client.send("state", location, Signup_Ticket=ticket)[1])
    assert client.send("stream", f"{location}/events", Signup_Ticket=ticket)[0] == 200
    assert client.send("404", "/user/signups/01a218bf-547a-7357-92c1-000000000000", Signup_Ticket=ticket)[0] == 404
    assert client.post_json("joined", person, Idempotency_Key=key)[0] == 202
    assert client.post_json("409", replace(person, user_name="Other"), Idempotency_Key=key)[0] == 409
    assert client.post_json("taken", replace(new_person(), user_id=person.user_id, password=trail.password))[0] == 202
    as_json = json.dumps(person.form).encode()
    of_json = {"Content_Type": "application/json"}
    assert client.send("400", "/user", as_json[:-1], **of_json)[0] == 400
    assert (
        client.send(
            "400 for the key",
            "/user",
            as_json,
            Idempotency_Key=trail.password.encode("ascii", "ignore").decode(),
            **of_json,
        )[0]
        == 400
    )
    assert client.send("413", "/user", as_json + b" " * 70_000, **of_json)[0] == 413
    assert client.send("415", "/user", as_json, Content_Type="text/plain")[0] == 415
    assert client.post_json("422", replace(new_person(), password=trail.password, email="nowhere"))[0] == 422
    similar = replace(new_person(), password=trail.password, user_name=trail.password)
    assert client.post_json("422: similar to the name", replace(similar, user_name="Canary Password"))[0] in (202, 422)
    unknown = json.dumps(new_person().form | {"userPw": trail.password, "more": trail.password}).encode()
    assert client.send("422: an unknown field", "/user", unknown, **of_json)[0] == 422
    wrong_type = json.dumps(new_person().form | {"userPw": [trail.password]}).encode()
    assert client.send("422: a list", "/user", wrong_type, **of_json)[0] == 422
    flood = [replace(new_person(), password=trail.password, user_id="canary-limited") for _ in range(12)]
    statuses = {client.post_json(f"429, {number}", each)[0] for number, each in enumerate(flood)}
    assert 429 in statuses
    # More at once than may wait for a hash. If hashes are fast, a single crowd may not suffice.
    eventually(lambda: 503 in statuses_of_a_crowd(client, trail), what="somebody is refused")
    fields = person.form | {"userPw2": trail.password}
    assert client.submit("the form, taken", "/signup/", **fields)[0] in (200, 409, 422)
    assert client.submit("the form, wrong", "/signup/", **(fields | {"email": "nowhere"}))[0] in (200, 422)
    assert client.submit("the form, different", "/signup/", **(fields | {"userPw2": f"{trail.password}!"}))[0] in (
        200,
        422,
    )
    anew = replace(new_person(), password=trail.password)
    status, page = client.submit("the form", "/signup/", **anew.form, userPw2=trail.password)
    assert status == 200
    for found in re.findall(r"/(?:signup/status|ws/signup)/([^/\"&\s]+)/", page):
        trail.tickets.add(found)


def statuses_of_a_crowd(client: Client, trail: Trail) -> set[int]:
    crowd = [replace(new_person(), password=trail.password) for _ in range(40)]
    with ThreadPoolExecutor(20) as threads:
        return set(threads.map(lambda pair: client.post_json(f"503, {pair[0]}", pair[1])[0], enumerate(crowd)))


def log_in_and_out(client: Client, person: Person, trail: Trail, inbox: Inbox) -> None:
    client.submit("login, wrong", "/login/", username=person.user_id, password=f"{trail.password}?")
    status, page = client.submit("login", "/login/", username=person.user_id, password=trail.password)
    assert status == 200
    assert person.user_id in page
    changed = {"old_password": trail.password, "new_password1": trail.password, "new_password2": f"{trail.password}!"}
    client.submit("password change, refused", "/account/password/", **changed)
    client.submit("password change", "/account/password/", **(changed | {"new_password2": trail.password}))
    client.submit("a link to a new password", "/password/", email=person.email)
    eventually(lambda: inbox.mails, what="a mail has come")


def crash(stack: Stack, person: Person, trail: Trail) -> None:
    """Trigger a bug in the API and one in a view while both hold all the secrets."""
    for path, attempt in (
        ("authsvc.api.registrar._checked_hash", lambda client: client.post_json("500 of the API", person)),
        (
            "signup_sync.front.signup_form._posted_signup_id",
            lambda client: client.submit("500 of a page", "/signup/", **person.form, userPw2=trail.password),
        ),
    ):
        command = ("-m", "tests.chaos.breaks_at", path, "raises", "--", "manage.py", "serve", "--port", "{port}")
        with another_web(stack, *command) as broken:
            client = Client(f"http://{LOOPBACK}:{broken.port}", trail)
            assert attempt(client)[0] == 500
            log = broken.log()
        assert "a bug of this test" in log
        trail.answers[f"the log of a crash in {path}"] = (0, log)


def administer(stack: Stack, client: Client, trail: Trail) -> None:
    """Request every page of the administration about sign-ups, users, letters, topics and processes."""
    staff = new_person()
    given = {"DJANGO_SUPERUSER_PASSWORD": staff.password}
    stack.manage("createsuperuser", "--noinput", "--user_id", staff.user_id, "--email", staff.email, **given)
    client.submit("admin: login", "/admin/login/?next=/admin/", username=staff.user_id, password=staff.password)
    waiting, seen = ["/admin/"], set[str]()
    while waiting and len(seen) < 100:
        path = waiting.pop(0)
        if path in seen or "logout" in path:
            continue
        seen.add(path)
        status, page = client.send(f"admin: {path}", path)
        assert status in (200, 404, 503), path
        # Skip the lists' filters, which would show the same data again.
        waiting += re.findall(r'href="(/admin/[^"#?]*)"', page)
    assert any(re.search(r"/authsvc/eventtransaction/[0-9a-f-]{36}/", path) for path in seen), seen
    assert any("/deadletter/" in path for path in seen), seen


def all_of_kafka(stack: Stack) -> Iterator[tuple[str, bytes]]:
    servers, prefix = stack.env["KAFKA_BOOTSTRAP_SERVERS"], stack.env["KAFKA_PREFIX"]
    client = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": "canary"})
    try:
        topics = [name for name in client.list_topics(timeout=PATIENCE).topics if name.startswith(prefix)]
    finally:
        client.close()
    for topic in topics:
        for message in read_topic(servers, topic):
            yield topic, b"\0".join((message.key or b"", message.value, repr(message.headers).encode()))


def all_of_redis(stack: Stack) -> Iterator[tuple[str, bytes]]:
    with redis.Redis.from_url(stack.env["REDIS_URL"]) as client:
        of_kind = {
            b"hash": client.hgetall,
            b"string": client.get,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"stream": client.xrange,
            b"none": lambda _: None,
        }
        for key in client.keys("*"):
            yield f"Redis: {key!r}", repr((key, of_kind[client.type(key)](key))).encode()


def all_of_databases(stack: Stack) -> Iterator[tuple[str, bytes]]:
    for service in SERVICES:
        if url := stack.env.get(f"{service.upper()}_DATABASE_URL"):
            with psycopg.connect(url) as connection:
                tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
                for (table,) in tables:
                    for (row,) in connection.execute(f'SELECT t::text FROM "{table}" t').fetchall():
                        yield f"{service}.{table}", row.encode()
        else:
            # The file and its journal, including deleted data.
            for file in Path(stack.env["DATA_DIR"]).glob(f"{service}.sqlite3*"):
                yield str(file), file.read_bytes()
            with closing(sqlite3.connect(Path(stack.env["DATA_DIR"]) / f"{service}.sqlite3")) as connection:
                yield service, "\n".join(connection.iterdump()).encode()


def spellings(secret: str) -> set[bytes]:
    """The ways in which a secret may be written: plain, in JSON, in a URL, in HTML, in Python's repr."""
    return {
        secret.encode(),
        json.dumps(secret)[1:-1].encode(),
        urllib.parse.quote(secret).encode(),
        urllib.parse.quote_plus(secret).encode(),
        repr(secret.encode())[2:-1].encode(),
        secret.encode("ascii", "ignore"),
    }


@pytest.fixture(scope="module")
def inbox_and_stack(backing: Backing) -> Iterator[tuple[Inbox, Stack]]:
    port = free_port()
    settings = {
        "LOG_LEVEL": "DEBUG",
        "HASH_QUEUE_LIMIT": "3",
        "RATE_LIMIT_USER_ID": "8",
        "EMAIL_URL": f"smtp://{LOOPBACK}:{port}",
    }
    with mail_server(port) as inbox, new_stack(backing, **settings) as stack:
        yield inbox, stack


def test_no_secret_reaches_kafka_redis_logs_traces_or_error_pages(inbox_and_stack: tuple[Inbox, Stack]) -> None:
    inbox, stack = inbox_and_stack
    trail = Trail()
    client = Client(stack.base_url, trail)
    person = replace(new_person(), password=trail.password)
    poisoned = replace(new_person(), password=trail.password)

    sign_up_and_be_refused(client, person, trail)
    log_in_and_out(client, person, trail, inbox)
    crash(stack, person, trail)
    produce_invalid(stack, "user.newUser.req", b"garbage", key=person.user_id)
    with refusing(stack, poisoned.user_id):
        assert client.post_json("a dead letter", poisoned)[0] == 202
        letter = eventually(lambda: letter_of(stack, poisoned, "--group", "chat"), what="the letter is listed")
    said = [
        stack.manage("dead_letters", "replay", letter[0]),
        stack.manage("replay_signups", "--user-id", person.user_id),
    ]
    said.append(stack.manage("explain", person.user_id))
    administer(stack, Client(stack.base_url, trail), trail)
    for role in stack.roles.values():
        Client(f"http://{LOOPBACK}:{role.port}", trail).send(f"metrics of {role.name}", "/metrics")

    places: list[tuple[str, bytes]] = [(what, text.encode()) for what, (_, text) in trail.answers.items()]
    # A page may show its own ticket to its own browser.
    own_pages = {what for what in trail.answers if what.startswith("the form") or what.endswith(": the page")}
    places += [(f"log of {name}", log.encode()) for name, log in stack.logs().items()]
    places += [("a command", (done.stdout + done.stderr).encode()) for done in said]
    places += [("a mail", mail.as_bytes() + str(mail.get_payload(decode=True)).encode()) for mail in inbox.mails]
    databases = list(all_of_databases(stack))
    places += [*all_of_kafka(stack), *all_of_redis(stack), *databases]

    assert len(trail.tickets) >= 5
    found = {
        (place, secret)
        for secret in {trail.password, *trail.tickets}
        for spelling in spellings(secret)
        for place, content in places
        if spelling in content and not (secret in trail.tickets and place in own_pages)
    }
    assert found == set()
    # Hashes are in databases alone.
    in_databases = {place for place, _ in databases}
    assert {place for place, content in places if b"argon2id$v=" in content} <= in_databases
    hashes = [password for (password,) in stack.query("auth", "SELECT password FROM authsvc_user")]
    assert all(each.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$") for each in hashes if not each.startswith("!"))
    # Check that the search does find a secret.
    for where in ("log of", "user.newUser.req", "user.newUser.req.chat.dlt", "Redis: ", "admin: ", "a mail"):
        assert any(where in place for place, _ in places), where
    text = b"\0".join(content for _, content in places)
    assert poisoned.user_id.encode() in text
