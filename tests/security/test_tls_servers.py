"""PostgreSQL, Kafka and Redis over TLS with passwords, through settings alone; a server with a wrong certificate
receives nothing."""

import asyncio
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
import redis
from channels_redis.pubsub import RedisPubSubChannelLayer
from confluent_kafka.admin import AdminClient
from django.db import DatabaseError
from django.db.utils import ConnectionHandler

from eventbus.clients import client_config
from runtime.redis_clients import redis_client, redis_listener, redis_pool
from tests.client import SERVICES
from tests.conftest import Person
from tests.security.production import PUBLIC_URL
from tests.servers.process import LOOPBACK
from tests.servers.tls import HOST, Authority, SaslKafkaServer, TlsPostgresqlServer, TlsRedisServer
from tests.stack import Stack
from tests.unit.test_settings import load_settings
from tests.waiting import eventually, eventually_async

pytestmark = pytest.mark.needs("application", "postgresql", "kafka", "caddy")


class TlsStack(Stack):
    redis_server = TlsRedisServer


@pytest.fixture(scope="module")
def tls_postgresql() -> Iterator[TlsPostgresqlServer]:
    with TlsPostgresqlServer() as server:
        yield server


@pytest.fixture(scope="module")
def sasl_kafka() -> Iterator[SaslKafkaServer]:
    with SaslKafkaServer() as server:
        yield server


@pytest.fixture(scope="module")
def tls_redis() -> Iterator[TlsRedisServer]:
    with TlsRedisServer() as server:
        yield server


@pytest.fixture
def stranger(tmp_path: Path) -> str:
    """The file of an authority that has signed none of these servers' certificates."""
    return str(Authority.another(tmp_path))


# --- All of it -------------------------------------------------------------------------------------------------


async def sign_up(base_url: str, person: Person) -> None:
    """Post the form like a browser without JavaScript behind a TLS proxy, and wait until all lights are green."""
    by_https = {"X-Forwarded-Proto": "https"}
    origin = base_url.replace("http://", "https://")
    async with aiohttp.ClientSession(base_url, cookie_jar=aiohttp.DummyCookieJar(), headers=by_https) as browser:
        async with browser.get("/signup/") as page:
            text = await page.text()
            assert (page.status, "userPw2" in text) == (200, True)
            cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in page.cookies.items())
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)"', text))
        form = hidden | person.form | {"userPw2": person.password}
        headers = {"Cookie": cookies, "Origin": origin, "Referer": f"{origin}/signup/"}
        async with browser.post("/signup/", data=form, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
            where = answer.headers["Location"]

        async def is_green() -> bool:
            async with browser.get(where, headers={"Cookie": cookies}, allow_redirects=False) as lights:
                green = (await lights.text()).count('data-status="SUCCESS"')
                return lights.status in (302, 303) or green == len(SERVICES)

        await eventually_async(is_green)


def test_an_installation_works_over_tls_and_tells_nobody_its_secrets(
    tls_postgresql: TlsPostgresqlServer, sasl_kafka: SaslKafkaServer, person: Person
) -> None:
    production = {"PRODUCTION": "true", "PUBLIC_URL": PUBLIC_URL, "ALLOWED_HOSTS": "signup.example.org,127.0.0.1"}
    # Production refuses the cheap hashes and missing limits of other tests.
    production |= dict.fromkeys(
        ("ARGON2_MEMORY_KIB", "ARGON2_TIME_COST", "HELD_PER_ADDRESS", "RATE_LIMIT_FAILED_LOGIN"), ""
    )
    with TlsStack.real(postgresql=tls_postgresql, kafka=sasl_kafka, auths=1, LOG_LEVEL="DEBUG", **production) as stack:
        asyncio.run(sign_up(stack.base_url, person))
        for service in SERVICES:
            eventually(lambda service=service: person.user_id in {row.user_id for row in stack.rows(service)})
            assert stack.query(service, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
        shown = "".join(stack.logs().values())
        metrics = [metrics_of(role.port) for role in stack.roles.values()]
        with redis.Redis.from_url(stack.redis.env["REDIS_URL"]) as client:
            instances = [str(client.get(key) or client.hgetall(key)) for key in client.scan_iter("instance:*")]
        assert len(instances) == len(stack.roles)
        helped = stack.manage("consume_events", "--help").stdout + stack.manage("dead_letters", "list").stdout
        secrets = [
            stack.env["SECRET_KEY"],
            tls_postgresql.password,
            urllib.parse.quote(tls_postgresql.password, safe=""),
            sasl_kafka.password,
            TlsRedisServer.password,
        ]
        for text in (shown, *metrics, *instances, helped):
            assert text
            assert not [secret for secret in secrets if secret in text]


def metrics_of(port: int) -> str:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=30) as answer:
        return answer.read().decode()


# --- PostgreSQL ------------------------------------------------------------------------------------------------


def ask(
    monkeypatch: pytest.MonkeyPatch, url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> tuple[list[tuple[bool]], str]:
    """Return whether PostgreSQL reports the connection for this AUTH_DATABASE_URL as encrypted, or the error of the
    connection.
    """
    loaded, _ = load_settings(monkeypatch, {"AUTH_DATABASE_URL": url, "DATA_DIR": str(tmp_path)})
    database = loaded["DATABASES"]["default"]
    database["OPTIONS"]["pool"]["timeout"] = 1  # a refused connection fails at once
    alias = f"tls-{uuid4()}"  # Django keeps the pool of an alias
    connection = ConnectionHandler({"default": {}, alias: database})[alias]
    caplog.clear()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return cursor.fetchall(), ""
    except DatabaseError as error:
        return [], f"{error!r} {caplog.text}"
    finally:
        connection.close()
        connection.close_pool()


@pytest.mark.django_db
def test_a_database_is_asked_over_tls_with_its_certificate_checked(
    tls_postgresql: TlsPostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    for url in (
        tls_postgresql.url("auth"),
        tls_postgresql.url_with(
            "auth", host=LOOPBACK, sslmode="verify-ca", sslrootcert=str(tls_postgresql.authority.ca)
        ),
        tls_postgresql.url_with("auth", host=HOST, sslmode="require", connect_timeout="5", application_name="x"),
    ):
        assert ask(monkeypatch, url, caplog, tmp_path) == ([(True,)], "")


@pytest.mark.django_db
def test_nothing_is_sent_to_a_database_with_an_invalid_certificate(
    tls_postgresql: TlsPostgresqlServer,
    postgresql,
    stranger: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    with_tls, right = tls_postgresql.url_with, str(tls_postgresql.authority.ca)
    unverified, another_host = "certificate verify failed", "does not match host name"
    refused = {
        # A server without TLS.
        f"{postgresql.url('auth')}?sslmode=require": "does not support SSL",
        f"{postgresql.url('auth')}?sslmode=verify-full&sslrootcert={right}": "does not support SSL",
        # Another authority's certificate, and another host's.
        with_tls("auth", host=HOST, sslmode="verify-full", sslrootcert=stranger): unverified,
        with_tls("auth", host=HOST, sslmode="verify-ca", sslrootcert=stranger): unverified,
        with_tls("auth", host=LOOPBACK, sslmode="verify-full", sslrootcert=right): another_host,
        # Without TLS the server itself refuses: the option took effect.
        with_tls("auth", host=HOST, sslmode="disable"): "no encryption",
    }
    for url, reason in refused.items():
        rows, said = ask(monkeypatch, url, caplog, tmp_path)
        assert rows == []
        assert reason in said
        assert tls_postgresql.password not in said


# --- Kafka -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", SaslKafkaServer.mechanisms)
def test_kafka_is_reached_over_tls_by_either_mechanism(sasl_kafka: SaslKafkaServer, settings, mechanism: str) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = sasl_kafka.env["KAFKA_BOOTSTRAP_SERVERS"]
    settings.KAFKA_CLIENT_CONFIG = sasl_kafka.client_config(mechanism)
    assert AdminClient(client_config({})).list_topics(timeout=30).brokers


@pytest.mark.parametrize(
    ("changed", "host", "reason"),
    [
        ({"ssl.ca.location": "stranger"}, HOST, "certificate verify failed"),
        ({}, LOOPBACK, "certificate verify failed"),
        ({"sasl.password": "wrong-password"}, HOST, "Authentication failed"),
        ({"sasl.mechanism": "PLAIN", "sasl.password": "wrong-password"}, HOST, "Authentication failed"),
    ],
)
def test_nothing_is_sent_to_a_kafka_with_an_invalid_certificate(
    sasl_kafka: SaslKafkaServer,
    settings,
    stranger: str,
    caplog: pytest.LogCaptureFixture,
    changed: dict[str, str],
    host: str,
    reason: str,
) -> None:
    changed = {name: stranger if value == "stranger" else value for name, value in changed.items()}
    settings.KAFKA_BOOTSTRAP_SERVERS = f"{host}:{sasl_kafka.port}"
    settings.KAFKA_CLIENT_CONFIG = sasl_kafka.client_config() | changed
    client = AdminClient(client_config({}))

    def complaint() -> bool:
        client.poll(0.1)
        return reason in caplog.text

    eventually(complaint, what=f"it says {reason}")
    assert settings.KAFKA_CLIENT_CONFIG["sasl.password"] not in caplog.text


# --- Redis -----------------------------------------------------------------------------------------------------


async def ask_redis(url: str) -> None:
    """Connect with every client that the product makes. Raises the error of the first that fails."""
    with redis_client(5.0) as client:
        client.ping()
    async with redis.asyncio.Redis.from_pool(redis_pool(5.0, connections=1)) as pooled:
        await pooled.ping()
    async with redis_listener(5.0) as listener:
        await listener.ping()
    layer = RedisPubSubChannelLayer(hosts=[{"address": url, "socket_timeout": None}])
    try:
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "said"})
        assert await asyncio.wait_for(layer.receive(channel), 30) == {"type": "said"}
    finally:
        await layer.flush()


async def test_redis_is_asked_over_tls_with_a_password(tls_redis: TlsRedisServer, settings) -> None:
    settings.REDIS_URL = tls_redis.env["REDIS_URL"]
    await ask_redis(settings.REDIS_URL)


@pytest.mark.parametrize("fault", ["stranger", "no authority", "host", "password", "no tls"])
async def test_nothing_is_sent_to_a_redis_with_an_invalid_certificate(
    tls_redis: TlsRedisServer, settings, stranger: str, fault: str
) -> None:
    right = {"ssl_ca_certs": str(tls_redis.authority.ca)}
    settings.REDIS_URL = {
        "stranger": tls_redis.url_with(ssl_ca_certs=stranger),
        "no authority": tls_redis.url_with(),
        "host": tls_redis.url_with(host=LOOPBACK, **right),
        "password": tls_redis.url_with(password="wrong-password", **right),
        "no tls": tls_redis.url_with(scheme="redis"),
    }[fault]
    with pytest.raises(redis.RedisError) as caught:
        await ask_redis(settings.REDIS_URL)
    assert not re.search(r"wrong-password|p/ss|p%2Fss", f"{caught.value!r}{caught.getrepr(style='short')}")
