"""Settings that PRODUCTION=true refuses, class by class, and similar ones that it accepts."""

import base64
import json
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from signup_sync.configuration.dotenv import read_dotenv
from tests.unit.test_settings import IN_PRODUCTION, ROOT, load_settings

LETTERS = "abcdefghijklmnopqrstuvwxyz"
KEYBOARD = "qwertyuiopasdfghjklzxcvbnm"

WEAK: list[tuple[str, str]] = [
    *(("SECRET_KEY", key) for key in [
        LETTERS * 2,
        LETTERS + LETTERS.upper() + "0123456789",
        (LETTERS * 3)[7:60],
        (LETTERS * 2)[::-1],
        "1234567890" * 5,
        KEYBOARD * 2,
        KEYBOARD + KEYBOARD.upper()[::-1],
        "1234567890qwertyuiop" * 3,
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p1qaz2wsx3edc4rfv",
        "!@#$%^&*()" * 6,
        "aabbccddeeffgghhiijjkkllmmnnooppqqrrssttuuvvwwxxyyzz",
        "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t0u1v2w3x4y5z6",
        "acegikmoqsuwy" * 4,
        "0001020304050607080910111213141516171819202122232425",
        "Tr0ub4dor&3" * 5,
        "Tr0ub4dor&3" * 4 + "Tr0ub4d",  # a part of the period at the end
        "start" + "Tr0ub4dor&3" * 5 + "end",
        "correct horse battery staple " * 3,
        "비밀번호" * 13,
        "a" * 100_000,
    ]),
    ("SECRET_KEY_FALLBACKS", "q8Zr-3TkXw1nBv6Yc0LmHs9Pd4Gf7Ja2Re5Uo_ItQxNzWyKbVh," + LETTERS * 2),
    *(("EMAIL_URL", url) for url in [
        "consolemail://",
        "filemail:///tmp/mails",
        "memorymail://",
        "dummymail://",
        "smtp://mail.example.org",
        "smtp://user:password@9.9.9.9:25",
        "smtp+tls://user:password@mail.example.org:587?email_use_tls=0",
    ]),
    ("ARGON2_MEMORY_KIB", "19455"),
    ("ARGON2_MEMORY_KIB", "512"),
    ("ARGON2_TIME_COST", "1"),
    *(("TRUSTED_PROXIES", networks) for networks in [
        "0.0.0.0/0",
        "0.0.0.0/1,128.0.0.0/1",
        "0.0.0.0/1",
        "127.0.0.1 0.0.0.0/2 64.0.0.0/2 128.0.0.0/2 192.0.0.0/2",
        " ".join(f"{first}.0.0.0/8" for first in range(0, 256, 2)),
        "::/0",
        "::/1 8000::/1",
        "2000::/3",
        "::ffff:0:0/96",
        "::ffff:0:0/97, ::ffff:128.0.0.0/97",
    ]),
    *(("AUTH_DATABASE_URL", f"postgres://auth:password@{rest}") for rest in [
        "db.example.org/auth",
        "9.9.9.9/auth",
        "[2001:4860:4860::8888]:5432/auth",
        "db,db.example.org/auth?sslmode=verify-ca",
        *(f"db.example.org/auth?sslmode={mode}" for mode in ("disable", "allow", "prefer", "require", "verify-ca")),
    ]),
    ("CHAT_DATABASE_URL", "postgres://chat@db.example.org/chat?sslmode=require"),
    ("CUSTOMER_DATABASE_URL", "postgres://customer@db.example.org/customer?sslmode=require"),
    *(("REDIS_URL", url) for url in [
        "rediss://redis:6379/0?ssl_cert_reqs=none",
        "rediss://redis:6379/0?ssl_cert_reqs=OPTIONAL",
        "rediss://redis:6379/0?ssl_cert_reqs=none&ssl_cert_reqs=required",
        "rediss://redis:6379/0?ssl_check_hostname=false",
        "rediss://redis:6379/0?ssl_ca_certs=/ca.pem&ssl_check_hostname=No",
        "rediss://redis:6379/0?ssl_check_hostname=0",
        "redis://:password@redis.example.org:6379/0",
    ]),
    *(("KAFKA_CLIENT_CONFIG", json.dumps(config)) for config in [
        {"security.protocol": "SSL", "enable.ssl.certificate.verification": False},
        {"security.protocol": "SSL", "enable.ssl.certificate.verification": "False"},
        {"security.protocol": "SSL", "Enable.SSL.certificate.verification": 0},
        {"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"},
        {"security.protocol": "SASL_SSL", "ssl.endpoint.identification.algorithm": ""},
        {"security.protocol": "SASL_SSL", "enable.sasl.oauthbearer.unsecure.jwt": True},
        {"security.protocol": "SASL_PLAINTEXT", "bootstrap.servers": "kafka.example.org:9092"},
        {"security.protocol": "SASL_PLAINTEXT", "bootstrap.servers": "kafka.example.org"},
        {"metadata.broker.list": "kafka:9092,PLAINTEXT://[2001:4860:4860::8888]"},
        {"metadata.broker.list": "2001:4860:4860::8888"},
    ]),
    ("GATEWAY_URL", "http://gateway.example.org"),
    ("GATEWAY_URL", "http://9.9.9.9:8000"),
    ("OPENSEARCH_URL", "http://search.example.org:9200"),
    ("OPENSEARCH_URL", "http://9.9.9.9:9200"),
    *(("CSRF_TRUSTED_ORIGINS", origins) for origins in [
        "http://signup.example.org",
        "https://signup.example.org,http://signup.example.org",
        "http://*.example.org",
        "https://*",
        "https://*.com",
        "https://*.co.uk",
    ]),
    *(("ALLOWED_HOSTS", hosts) for hosts in [
        "*", "signup.example.org,*", ".com", ".COM", ".co.uk", ".or.kr", "signup.example.org,.org", ".localhost",
    ]),
    *(("HSTS_SECONDS", seconds) for seconds in ["1", "60", "299"]),
    *((name, "0") for name in [
        "CONNECTION_IDLE_TIMEOUT", "REQUEST_HEAD_TIMEOUT", "REQUEST_BODY_TIMEOUT", "RESPONSE_STALL_TIMEOUT",
        "HELD_PER_SIGNUP", "HELD_PER_ADDRESS", "RATE_LIMIT_LOGIN", "RATE_LIMIT_PASSWORD", "RATE_LIMIT_FAILED_LOGIN",
        "RATE_LIMIT_CONFIRM", "HASH_QUEUE_LIMIT", "MAIL_QUEUE_LIMIT", "SESSION_COOKIE_AGE", "ADMIN_SESSION_AGE",
        "ADMIN_SESSION_IDLE", "TICKET_MAX_AGE", "SIGNUP_CONFIRM_HOURS",
    ]),
    *((name, "2147483647") for name in [
        "CONNECTION_IDLE_TIMEOUT", "REQUEST_HEAD_TIMEOUT", "REQUEST_BODY_TIMEOUT", "RESPONSE_STALL_TIMEOUT",
        "HELD_PER_SIGNUP", "HELD_PER_ADDRESS", "RATE_LIMIT_LOGIN", "RATE_LIMIT_PASSWORD", "RATE_LIMIT_FAILED_LOGIN",
        "RATE_LIMIT_CONFIRM", "HASH_QUEUE_LIMIT", "MAIL_QUEUE_LIMIT", "SESSION_COOKIE_AGE", "ADMIN_SESSION_AGE",
        "ADMIN_SESSION_IDLE",
    ]),
]  # fmt: skip

STRONG: list[dict[str, str]] = [
    {"EMAIL_URL": ""},
    {"EMAIL_URL": "smtp://localhost:25"},
    {"EMAIL_URL": "smtp://mail:25"},
    {"EMAIL_URL": "smtp+tls://user:password@mail.example.org:587"},
    {"EMAIL_URL": "smtp+ssl://user:password@mail.example.org:465"},
    {"ARGON2_MEMORY_KIB": "47104", "ARGON2_TIME_COST": "1"},
    {"ARGON2_MEMORY_KIB": "7168", "ARGON2_TIME_COST": "5"},
    {"TRUSTED_PROXIES": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"},
    {"TRUSTED_PROXIES": "fc00::/7, 127.0.0.1 ::1"},
    {"TRUSTED_PROXIES": "2400:cb00::/32 103.21.244.0/22 ::ffff:10.0.0.0/104"},
    {"AUTH_DATABASE_URL": "postgres://auth@10.1.2.3/auth"},
    {"AUTH_DATABASE_URL": "postgres://auth@postgres.database.svc.cluster.local/auth"},
    {"AUTH_DATABASE_URL": "postgres:////var/run/postgres.d/auth"},
    {"AUTH_DATABASE_URL": "postgres://auth@db.example.org/auth?sslmode=verify-full&sslrootcert=system"},
    {"AUTH_DATABASE_URL": "sqlite:////tmp/auth.sqlite3"},
    {"REDIS_URL": "rediss://redis.example.org/0?ssl_cert_reqs=required&ssl_check_hostname=true"},
    {"REDIS_URL": "unix:///run/redis.d/redis.sock"},
    {"REDIS_URL": "redis://[::1]:6379/0"},
    {"KAFKA_CLIENT_CONFIG": '{"security.protocol": "SASL_PLAINTEXT"}'},
    {"KAFKA_BOOTSTRAP_SERVERS": "10.0.0.1:9092,[fd00::1]:9092"},
    {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka.example.org:9093",
        "KAFKA_CLIENT_CONFIG": '{"security.protocol": "sasl_ssl", "ssl.endpoint.identification.algorithm": "https"}',
    },
    {"GATEWAY_URL": "https://gateway.example.org"},
    {"OPENSEARCH_URL": "https://search.example.org:9200"},
    {"OPENSEARCH_URL": "http://signup:password@opensearch:9200"},
    {"CSRF_TRUSTED_ORIGINS": "https://signup.example.org,https://*.example.org"},
    {"ALLOWED_HOSTS": ".example.org,.example.co.uk,localhost,10.0.0.1,[::1]"},
    {"HSTS_SECONDS": "300"},
    {"HSTS_SECONDS": "0"},
]


@pytest.mark.parametrize(("name", "value"), WEAK, ids=lambda each: each[:40])
def test_production_refuses_weak_settings_in_one_line_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        load_settings(monkeypatch, IN_PRODUCTION | {name: value})
    said = str(caught.value)
    assert name in said.partition(":")[0]
    assert "\n" not in said
    assert said.endswith(".")
    assert "password@" not in said.replace("user:password@host", "")
    assert len(said) < 600


@pytest.mark.parametrize("changed", STRONG, ids=str)
def test_production_accepts_strong_settings(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]) -> None:
    load_settings(monkeypatch, IN_PRODUCTION | changed)


def test_a_broker_outside_without_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for servers in ("kafka:9092,kafka.example.org:9092", "9.9.9.9:9092"):
        with pytest.raises(ImproperlyConfigured, match=r"^KAFKA_CLIENT_CONFIG .*TLS"):
            load_settings(monkeypatch, IN_PRODUCTION | {"KAFKA_BOOTSTRAP_SERVERS": servers})


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_hex(25),
        lambda: secrets.token_hex(32),
        lambda: secrets.token_urlsafe(38),
        lambda: base64.b64encode(secrets.token_bytes(48)).decode(),
    ],
    ids=["hex 25", "hex 32", "urlsafe 38", "base64 48"],
)
def test_random_keys_are_accepted(monkeypatch: pytest.MonkeyPatch, make: Callable[[], str]) -> None:
    from signup_sync.configuration import production

    refused = [key for key in (make() for _ in range(300)) if production.weakness_of_key(key)]
    assert refused == []


def test_the_keys_of_make_secrets_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """deploy/make-secrets.sh, in a copy of the folders that it reads and writes."""
    (tmp_path / "deploy").mkdir()
    for file in ("compose.yaml", "deploy/make-secrets.sh"):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    subprocess.run(["sh", tmp_path / "deploy" / "make-secrets.sh"], check=True, timeout=60)
    made = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    load_settings(monkeypatch, IN_PRODUCTION | {"SECRET_KEY": made["SECRET_KEY"]})


def test_make_secrets_keeps_every_value_of_an_env_file(tmp_path: Path) -> None:
    """However its lines are written, even if the last one has no end."""
    (tmp_path / "deploy").mkdir()
    for file in ("compose.yaml", "deploy/make-secrets.sh"):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    env = tmp_path / ".env"
    env.write_text("export SECRET_KEY=mine\nAUTH_OWNER_PASSWORD = mine\nPUBLIC_URL=https://signup.example.org")
    before = read_dotenv(env)
    subprocess.run(["sh", tmp_path / "deploy" / "make-secrets.sh"], check=True, timeout=60)
    after = read_dotenv(env)
    assert before.items() <= after.items()
    assert len(after["AUTH_DATABASE_PASSWORD"]) == 64


def test_outside_production_weak_settings_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Developers and tests have no TLS, and cheap hashes."""
    weak = {
        "DATA_DIR": str(tmp_path),
        "SECRET_KEY": "x",
        "EMAIL_URL": "consolemail://",
        "ARGON2_MEMORY_KIB": "64",
        "TRUSTED_PROXIES": "0.0.0.0/0",
        "HELD_PER_ADDRESS": "0",
        "ALLOWED_HOSTS": "*",
        "HSTS_SECONDS": "1",
    }
    load_settings(monkeypatch, weak)
