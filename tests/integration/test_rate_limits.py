"""Rate limits of sign-ups, a closed sign-up, and the address to which a request is attributed."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import redis
from asgiref.testing import ApplicationCommunicator
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from authsvc.api.application import SignUpApi
from authsvc.rate_limits import REPETITIONS, network_of
from authsvc.signups.events import NEW_USER_REQUESTED
from eventbus.topics import ensure_topics
from signup_sync.front.tickets import signed_address
from tests.conftest import Person, new_person

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]

AWAY = "redis://127.0.0.1:1/0"
PROXY = "10.1.0.1"


@pytest.fixture(autouse=True)
def own_topics_and_counts(settings):
    settings.KAFKA_PREFIX = f"limits-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
    settings.RATE_LIMIT_ADDRESS = settings.RATE_LIMIT_USER_ID = settings.RATE_LIMIT_TOTAL = 0


class Api:
    """The API behind PROXY, as asgi.py runs it behind TRUSTED_PROXIES."""

    def __init__(self) -> None:
        self.api = SignUpApi()
        self._application = ProxyHeadersMiddleware(self.api, trusted_hosts=[PROXY])

    async def post(self, person: Person | None = None, *, peer: str = "192.0.2.1", **headers: str):
        """Status, headers and document of a `POST /user`; header names with `_` for `-`."""
        sent = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        scope = {
            "type": "http", "method": "POST", "path": "/user", "client": (peer, 4711),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        }  # fmt: skip
        client = ApplicationCommunicator(self._application, scope)
        body = json.dumps((person or new_person()).form).encode()
        await client.send_input({"type": "http.request", "body": body, "more_body": False})
        start = await client.receive_output(timeout=20)
        end = await client.receive_output(timeout=20)
        await client.wait(timeout=20)
        named = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], named, json.loads(end["body"])

    async def statuses(self, count: int, **options: str) -> list[int]:
        return [(await self.post(**options))[0] for _ in range(count)]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    one = Api()
    yield one
    await one.api.close()


async def test_one_address_gets_429_with_the_seconds_to_wait_and_another_one_continues(api, settings):
    settings.RATE_LIMIT_ADDRESS = 2
    assert await api.statuses(2) == [202, 202]
    status, headers, problem = await api.post()
    assert (status, headers["content-type"]) == (429, "application/problem+json")
    assert 1 <= int(headers["retry-after"]) <= 60
    assert problem["type"] == "/problems/limit-address"
    assert problem["detail"].startswith("Too many sign-ups came from your address in the last minute. Try again in ")
    assert await api.statuses(1, peer="192.0.2.2") == [202]


async def test_a_limit_that_is_raised_counts_at_once(api, settings):
    settings.RATE_LIMIT_ADDRESS = 1
    assert await api.statuses(2) == [202, 429]
    settings.RATE_LIMIT_ADDRESS = 0
    assert await api.statuses(1) == [202]


async def test_requests_for_one_user_id_are_counted_in_any_spelling(api, settings):
    settings.RATE_LIMIT_USER_ID = 2
    person = new_person()
    spellings = [person, Person(person.user_id.upper(), "other@example.org", "Other", person.password), person]
    answers = [await api.post(each, peer=f"192.0.2.{n}") for n, each in enumerate(spellings)]
    assert [status for status, _, _ in answers] == [202, 202, 429]
    assert answers[-1][2]["type"] == "/problems/limit-user-id"
    assert await api.statuses(1) == [202]


async def test_the_total_is_limited_and_a_flood_from_one_address_does_not_use_it_up(api, settings):
    settings.RATE_LIMIT_ADDRESS, settings.RATE_LIMIT_TOTAL = 1, 2
    assert await api.statuses(4) == [202, 429, 429, 429]
    assert await api.statuses(1, peer="192.0.2.2") == [202]
    status, _, problem = await api.post(peer="192.0.2.3")
    assert (status, problem["type"]) == (429, "/problems/limit-total")


async def test_two_processes_count_together(api, settings):
    settings.RATE_LIMIT_ADDRESS = 2
    other = Api()
    assert [*await api.statuses(1), *await other.statuses(1), *await api.statuses(1)] == [202, 202, 429]
    await other.api.close()


async def test_retries_of_a_running_sign_up_join_it_up_to_a_limit(api, settings):
    settings.RATE_LIMIT_ADDRESS = 1
    person, key = new_person(), str(uuid4())
    assert (await api.post(person, Idempotency_Key=key))[0] == 202
    repeated = [(await api.post(person, Idempotency_Key=key))[0] for _ in range(REPETITIONS.amount + 1)]
    assert repeated == [202] * REPETITIONS.amount + [429]
    assert (await api.post(Idempotency_Key=str(uuid4())))[0] == 429


async def test_while_redis_is_down_nobody_is_limited_and_a_warning_is_logged(settings, caplog):
    settings.RATE_LIMIT_ADDRESS = 1
    settings.REDIS_URL = AWAY
    api = Api()
    assert await api.statuses(3) == [202, 202, 202]
    await api.api.close()
    assert "Redis is unavailable: sign-ups are let through uncounted" in caplog.text


# --- Whose address ----------------------------------------------------------------------------------------------


async def test_behind_the_proxy_the_address_is_that_of_the_proxys_own_client(api, settings):
    settings.RATE_LIMIT_ADDRESS = 1
    assert await api.statuses(2, peer=PROXY, X_Forwarded_For="192.0.2.7") == [202, 429]
    # An address that the client has prepended is ignored.
    assert await api.statuses(1, peer=PROXY, X_Forwarded_For="203.0.113.9, 192.0.2.7") == [429]
    assert await api.statuses(1, peer=PROXY, X_Forwarded_For="192.0.2.8") == [202]


async def test_the_header_of_an_untrusted_peer_is_ignored(api, settings):
    settings.RATE_LIMIT_ADDRESS = 1
    assert await api.statuses(1, X_Forwarded_For="203.0.113.1") == [202]
    assert await api.statuses(1, X_Forwarded_For="203.0.113.2") == [429]


async def test_only_the_front_can_name_the_address_that_it_posts_for(api, settings):
    settings.RATE_LIMIT_ADDRESS = 1

    def of_front(address: str, key: str) -> dict[str, str]:
        return {"Idempotency_Key": key, "Signup_Address": signed_address(key, address)}

    keys = [str(uuid4()) for _ in range(4)]
    assert await api.statuses(1, **of_front("198.51.100.1", keys[0])) == [202]
    assert await api.statuses(1, **of_front("198.51.100.2", keys[1])) == [202]
    assert await api.statuses(1, **of_front("198.51.100.1", keys[2])) == [429]
    # A signature for another sign-up, and an unsigned address: the peer's own address counts.
    stolen = of_front("198.51.100.9", keys[3]) | {"Idempotency_Key": str(uuid4())}
    assert await api.statuses(1, **stolen) == [202]
    assert await api.statuses(1, Signup_Address="198.51.100.8") == [429]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_the_addresses_of_one_ipv6_network_count_as_one(address, network):
    assert network_of(address) == network


# --- Closed -----------------------------------------------------------------------------------------------------


async def test_a_closed_sign_up_refuses_new_users_and_running_sign_ups_continue(api, settings):
    person, key = new_person(), str(uuid4())
    assert (await api.post(person, Idempotency_Key=key))[0] == 202
    settings.SIGNUP_OPEN = False
    status, headers, problem = await api.post()
    assert (status, problem["type"], headers["content-type"]) == (403, "/problems/closed", "application/problem+json")
    assert (await api.post(Idempotency_Key=str(uuid4())))[0] == 403
    assert (await api.post(person, Idempotency_Key=key))[0] == 202


# --- Reasons ----------------------------------------------------------------------------------------------------


async def test_a_red_light_has_its_reason_only_if_the_setting_shows_reasons(api, settings):
    person = new_person()
    await api.post(person)
    _, _, told = await api.post(person)
    assert told["services"]["auth"] == {"status": "FAIL", "reason": "duplicate: userId"}
    settings.SIGNUP_REASONS = False
    _, _, untold = await api.post(person)
    assert untold["services"]["auth"] == {"status": "FAIL"}
