"""Settings with which a production installation refuses to start, and the one-line reasons."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from signup_sync.participants import PARTICIPANTS
from tests.security.production import ENVIRONMENT
from tests.servers.process import ROOT
from tests.stack import MANAGE
from tests.unit.test_settings import load_settings

KEY = ENVIRONMENT["SECRET_KEY"]
SECRET = "hunter2-hunter2"


def manage(*command: str, **changed: str | None) -> subprocess.CompletedProcess[str]:
    """Return the output of `manage.py` in production. A setting that is changed to None is unset."""
    environment = {name: value for name, value in (ENVIRONMENT | changed).items() if value is not None}
    return subprocess.run(
        [*MANAGE, *command], env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def refusal(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> str:
    """Return the line with which production refuses the settings."""
    values = {name: value for name, value in (ENVIRONMENT | changed).items() if value is not None}
    with pytest.raises(ImproperlyConfigured) as caught:
        load_settings(monkeypatch, values)
    said = str(caught.value)
    assert "\n" not in said
    return said


def accepted(monkeypatch: pytest.MonkeyPatch, **changed: str) -> dict[str, Any]:
    return load_settings(monkeypatch, ENVIRONMENT | changed)[0]


@pytest.mark.parametrize(
    "key",
    [
        "x",
        KEY[:49],
        "a" * 64,
        "ab" * 32,
        "0123456789" * 6,
        "changeme" * 8,
        "django-insecure-" + KEY,
        "the-output-of-openssl-rand-base64-48" + KEY,
        "my-ChangeMe-" + KEY,
    ],
)
def test_production_refuses_a_weak_secret_key_and_does_not_show_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    said = refusal(monkeypatch, SECRET_KEY=key)
    assert said.startswith("SECRET_KEY ")
    assert len(key) == 1 or key not in said


@pytest.mark.parametrize("length", ["hex 32", "base64 48", "token"])
def test_production_accepts_a_random_key(monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    key = {
        "hex 32": "4bb1a6d2c1f7c5c7d39ef0fbb7e1c2a8f7a1c7be3a2e5c4de07e3ac4e9b1f7d0",
        "base64 48": "sCmNnKdkHq2bLJ0r8mXyqYgWc7u0Q7y7e9b6m4D1vZp3T5xRkA2fUoI+hE8/wGjB",
        "token": KEY,
    }[length]
    assert accepted(monkeypatch, SECRET_KEY=key)["SECRET_KEY"] == key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "true"),
        ("DEBUG", "1"),
        ("PUBLIC_URL", None),
        ("PUBLIC_URL", ""),
        ("PUBLIC_URL", "http://signup.example.org"),
        ("PUBLIC_URL", "signup.example.org"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "https://signup.example.org/path"),
        ("PUBLIC_URL", "https://signup.example.org?x"),
        ("PUBLIC_URL", "https://user:pw@signup.example.org"),
        ("PUBLIC_URL", "https://signup.example.org:port"),
        ("PUBLIC_URL", "https://signup.example.org:99999"),
        ("PUBLIC_URL", "https://sign up.example.org"),
        ("PUBLIC_URL", "javascript:alert(1)"),
        ("ALLOWED_HOSTS", None),
        ("ALLOWED_HOSTS", ""),
        ("ALLOWED_HOSTS", " , "),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "signup.example.org, *"),
        ("ALLOWED_HOSTS", "https://signup.example.org"),
        ("ALLOWED_HOSTS", "signup.example.org:443"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("TRUSTED_PROXIES", "::/0"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "gateway"),
        ("PRODUCTION", "ture"),
        ("PRODUCTION", "2"),
        ("DEBUG", "nope"),
        ("KAFKA_PARTITIONS", "four"),
        ("KAFKA_PARTITIONS", "-1"),
        ("KAFKA_PARTITIONS", "4.0"),
        ("SIGNUP_DEADLINE", "30s"),
        ("SIGNUP_DEADLINE", "nan"),
        ("SIGNUP_DEADLINE", "-1"),
        ("HSTS_SECONDS", "1e3"),
    ],
)
def test_production_refuses_unsafe_or_unreadable_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    assert refusal(monkeypatch, **{name: value}).startswith(f"{name} ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_DATABASE_URL", f"postgres://auth:{SECRET}/x@db/auth"),
        ("AUTH_DATABASE_URL", f"postgres://auth:{SECRET}#x@db/auth"),
        ("AUTH_DATABASE_URL", f"postgres://auth:{SECRET}@db:99999/auth"),
        ("AUTH_DATABASE_URL", f"mysql://auth:{SECRET}@db/auth"),
        ("AUTH_DATABASE_URL", f"postgres://auth:{SECRET}@db"),
        ("AUTH_DATABASE_URL", f"postgres://auth:{SECRET}@db/auth?sslmode"),
        ("AUTH_DATABASE_URL", f"postgres://auth@db/auth?password={SECRET}"),
        ("AUTH_DATABASE_URL", f"postgres://auth:{SECRET}@db/auth?ssl=true"),
        ("REDIS_URL", f"redis://:{SECRET}/x@redis:6379/0"),
        ("REDIS_URL", f"http://:{SECRET}@redis"),
        ("REDIS_URL", f"redis://:{SECRET}@redis/0?socket_timeout=5"),
        ("REDIS_URL", f"redis://:{SECRET}@redis/0?ssl_ca_certs"),
        ("KAFKA_CLIENT_CONFIG", f'{{"sasl.password": {SECRET}}}'),
        ("KAFKA_CLIENT_CONFIG", f'["{SECRET}"]'),
        ("KAFKA_CLIENT_CONFIG", SECRET),
        ("SECRET_KEY", SECRET),
        ("SECRET_KEY", f"${SECRET}"),
    ],
)
def test_a_refused_secret_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    said = refusal(monkeypatch, **{name: value})
    assert said.startswith(f"{name} ")
    assert SECRET not in said


@pytest.mark.parametrize(
    ("name", "value", "begin"),
    [
        ("AUTH_DATABASE_URL", f"postgres://auth:{SECRET}/x@db/auth", "AUTH_DATABASE_URL can't be used: "),
        ("KAFKA_CLIENT_CONFIG", SECRET, "KAFKA_CLIENT_CONFIG can't be used: "),
        ("SECRET_KEY", "x", "SECRET_KEY has 1 characters: "),
        ("DEBUG", "true", "DEBUG is true together with PRODUCTION=true: "),
        ("PRODUCTION", "ture", "PRODUCTION is 'ture': give it true or false."),
    ],
)
def test_a_command_ends_with_the_one_line_error_only(name: str, value: str, begin: str) -> None:
    done = manage("consume_events", "chat", **{name: value})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(begin)
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {}),
        ("?sslmode=require", {"sslmode": "require"}),
        ("?sslmode=verify-full&sslrootcert=system", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("?connect_timeout=5&application_name=a%20b", {"connect_timeout": "5", "application_name": "a b"}),
        ("?options=-c%20search_path%3Dx", {"options": "-c search_path=x"}),
        ("?target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
    ],
)
def test_the_options_of_a_database_url_take_effect(
    monkeypatch: pytest.MonkeyPatch, options: str, expected: dict[str, str]
) -> None:
    database = accepted(monkeypatch, AUTH_DATABASE_URL=f"postgres://a:b%2Fc@db:5433/auth{options}")["DATABASES"][
        "default"
    ]
    assert {name: value for name, value in database["OPTIONS"].items() if name != "pool"} == expected
    assert database["OPTIONS"]["pool"]["max_size"] == 8
    assert (database["USER"], database["PASSWORD"], database["HOST"], database["PORT"], database["NAME"]) == (
        ("a", "b/c", "db", "5433", "auth")
    )


@pytest.mark.parametrize(
    "option",
    [
        "sslmode=yes",
        "sslmode=require&sslmode=disable",
        "sslmode=",
        "ssl=require",
        "sslrootcert=/nowhere/ca.pem",
        "connect_timeout=soon",
        "pool=true",
        "pool_size=4",
        "CONN_MAX_AGE=60",
        "conn_health_checks=false",
        "ATOMIC_REQUESTS=true",
        "isolation_level=4",
        "user=postgres",
        "host=elsewhere",
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    said = refusal(monkeypatch, CHAT_DATABASE_URL=f"postgres://chat@db/chat?{option}")
    assert said.startswith("CHAT_DATABASE_URL can't be used: ")
    assert option.partition("=")[0] in said or option.count("sslmode") == 2


def test_a_cluster_and_a_unix_socket_are_addresses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = accepted(monkeypatch, AUTH_DATABASE_URL="postgres://a:b@one:5433,two:5434/auth")["DATABASES"]["default"]
    assert (cluster["HOST"], cluster["PORT"]) == ("one,two", "5433,5434")
    local = accepted(monkeypatch, AUTH_DATABASE_URL="postgres:////var/run/postgresql/auth")["DATABASES"]["default"]
    assert (local["HOST"], local["NAME"], local["USER"]) == ("/var/run/postgresql", "auth", "")


def test_sqlites_one_option_takes_effect_and_others_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/auth.sqlite3"
    loaded, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), "AUTH_DATABASE_URL": f"{url}?timeout=7"})
    options = loaded["DATABASES"]["default"]["OPTIONS"]
    assert (options["timeout"], options["transaction_mode"]) == (7, "IMMEDIATE")
    for option in ("timeout=soon", "mode=ro", "init_command=PRAGMA%20x", "transaction_mode=DEFERRED"):
        with pytest.raises(ImproperlyConfigured, match="AUTH_DATABASE_URL can't be used"):
            load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), "AUTH_DATABASE_URL": f"{url}?{option}"})


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("KAFKA_PARTITIONS", "DEBUG", "SIGNUP_DEADLINE", "KAFKA_CLIENT_CONFIG", "SIGNUP_SERVICES", "LOG_FORMAT")
    assert accepted(monkeypatch, **dict.fromkeys(names, "")) == accepted(monkeypatch)


def test_requests_to_the_public_host_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = accepted(monkeypatch, PUBLIC_URL="https://Other.example.org:8443/")
    assert loaded["PUBLIC_URL"] == "https://other.example.org:8443"
    assert loaded["SECURE_SSL_HOST"] == "other.example.org:8443"
    assert loaded["ALLOWED_HOSTS"] == ["signup.example.org", "127.0.0.1", "other.example.org"]


def test_check_deploy_is_clean_and_nothing_is_silenced() -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr
    assert "no issues (0 silenced)" in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        ("HSTS_SECONDS", "0", "security.W004"),
        ("HSTS_SUBDOMAINS", "false", "security.W005"),
        ("HSTS_PRELOAD", "false", "security.W021"),
    ],
)
def test_check_deploy_still_reports_missing_protection(name: str, value: str, warning: str) -> None:
    """The checks of middleware would report nothing if they did not find Django's."""
    done = manage("check", "--deploy", "--fail-level", "WARNING", **{name: value})
    assert done.returncode == 1
    assert warning in done.stderr


def test_check_deploy_reports_each_missing_middleware(settings, capsys: pytest.CaptureFixture[str]) -> None:
    from django.core.management import call_command
    from django.core.management.base import SystemCheckError

    for away, warning in (("Security", "W001"), ("XFrameOptions", "W002"), ("CsrfView", "W003")):
        named = settings.MIDDLEWARE
        settings.MIDDLEWARE = [name for name in named if not name.endswith(f".{away}Middleware")]
        with pytest.raises(SystemCheckError, match=f"security.{warning}"):
            call_command("check", "--deploy", "--fail-level", "WARNING", "--tag", "security")
        settings.MIDDLEWARE = named


@pytest.mark.parametrize(
    "command",
    [
        *(("consume_events", service) for service in PARTICIPANTS),
        ("consume_events", "auth"),
        ("relay_signups",),
        ("collect_dead_letters",),
        ("index_events",),
    ],
)
def test_a_role_that_signs_nothing_starts_without_the_key(command: tuple[str, ...]) -> None:
    """Up to its command line: all imports are loaded, and the settings are checked."""
    done = manage(*command, "--help", SECRET_KEY=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert KEY not in done.stdout


@pytest.mark.parametrize("given", [None, ""])
def test_the_web_process_does_not_start_without_the_key(given: str | None) -> None:
    done = manage("serve", "--port", "0", SECRET_KEY=given)
    assert done.returncode == 1
    assert done.stderr.startswith("SECRET_KEY is not set")
    assert done.stderr.count("\n") == 1


def test_signing_without_the_key_fails() -> None:
    code = "from django.core import signing; signing.dumps('x')"
    done = manage("shell", "--no-imports", "--command", code, SECRET_KEY=None)
    assert done.returncode == 1
    assert "SECRET_KEY" in done.stderr
