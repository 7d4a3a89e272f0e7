"""Each setting of .env.example with values that can't be used: one line, which names the setting and never a secret."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from signup_sync.configuration.environment import is_secret
from tests.unit.test_settings import OF_THE_LAUNCHER, example_lines, load_settings

# Names that the product accepts unchanged.
TAKES_ANY_TEXT = {"VERSION", "RESERVED_USER_IDS", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "DATA_DIR"}
INTEGERS = ("four", "-1", "1.5", "99999999999999999999", "9" * 5000, "0x10", "٣")
NUMBERS = ("soon", "-1", "nan", "inf", "1e400")
BOOLEANS = ("treu", "2", "y es")
INVALID: dict[str, tuple[str, ...]] = {
    "PUBLIC_URL": ("signup.example.org", "ftp://host", "http://host:99999", "http://host/path", "http://[::1"),
    "GATEWAY_URL": ("gateway:8080", "http://", "http://host:port", "http://host/path", "http://a b"),
    "ALLOWED_HOSTS": ("https://host", "host:8000", "a b"),
    "CSRF_TRUSTED_ORIGINS": ("signup.example.org", "https://host/path"),
    "LOG_LEVEL": ("loud", "10"),
    "LOG_FORMAT": ("xml",),
    "TIME_ZONE": ("KST", "Asia", "../etc/passwd", "/etc/passwd", "+09:00"),
    "SIGNUP_SERVICES": ("chat,customer", "auth,auth", "auth,Chat", "auth,ch at", "auth,채팅", "auth,a/b", "auth;chat"),
    "SCIM_SERVERS": (
        "https://crm.example.org",
        "crm",
        "CRM=https://crm.example.org",
        "crm=crm.example.org",
        "crm=ftp://crm.example.org",
        "crm=https://crm.example.org?a=b",
        "crm=https://crm.example.org/#a",
        "crm=https://a b/",
        "crm=https://a.example.org,crm=https://b.example.org",
        "chat=https://chat.example.org",
        "scim=https://scim.example.org",
        "chat-reconcile=https://chat.example.org",
    ),
    # Without SCIM_SERVERS, no token belongs to a server.
    "SCIM_TOKENS": ("crm=hid den", "crm", "crm=", 'crm="hidden"', "crm=hidden", "crm=hidden,crm=hidden"),
    "SCIM_DATABASE_URL": ("mysql://scim:hidden@host/scim",),
    "AUTH_DATABASE_URL": ("auth.sqlite3", "mysql://auth:hidden@host/auth"),
    "CHAT_DATABASE_URL": ("postgres://chat:hid/den@host/chat",),
    "CUSTOMER_DATABASE_URL": ("postgres://host:port/chat",),
    "KAFKA_BOOTSTRAP_SERVERS": (
        "kafka",
        "kafka:99999",
        "kafka:9092;kafka:9093",
        "http://kafka:9092",
        ":9092",
        "kafka:0",
    ),
    "KAFKA_CLIENT_CONFIG": ("{", "[]", "4", '{"sasl.password": {"hidden": 1}}', '{"sasl.password": "hidden"'),
    "KAFKA_PREFIX": ("a b", "준비.", "a/b"),
    "OPENSEARCH_URL": (
        "opensearch:9200",
        "ftp://host:9200",
        "https://user:hid/den@host:9200",
        "https://user:hidden@host:port",
        "https://user:hidden@host/path",
        "https://user:hidden@host?verify_certs=false",
    ),
    "OPENSEARCH_INDEX": ("Events", "a b", "events*", "_events", "-events"),
    "EVENT_SEARCH": BOOLEANS,
    "REDIS_URL": ("redis:6379", "redis://:hid/den@host", "redis://host:port"),
    "TRUSTED_PROXIES": ("gateway", "10.0.0.1/8"),
    "SIGNUP_CONFIRM": ("sms",),
    "HEALTH_HOST": ("a b", "256.0.0.1", "http://host", "[::1]"),
    "HEALTH_PORT": (*INTEGERS, "65536"),
    "WEB_ROLE": ("api",),
    "EMAIL_URL": ("mail.example.org", "smtp://user:hidden@host:port", "gopher://host", "smtp://user:hidden@"),
    "DEFAULT_FROM_EMAIL": ("nobody", "@host", "Us <us>"),
    "ADMIN_TWO_FACTOR": ("yes",),
    **dict.fromkeys(("PRODUCTION", "DEBUG", "HSTS_SUBDOMAINS", "HSTS_PRELOAD", "KAFKA_EMBEDDED"), BOOLEANS),
    **dict.fromkeys(("SIGNUP_OPEN", "SIGNUP_REASONS"), BOOLEANS),
    **dict.fromkeys(("REQUEST_HEAD_TIMEOUT", "REQUEST_BODY_TIMEOUT", "RESPONSE_STALL_TIMEOUT"), (*NUMBERS, "0")),
    **dict.fromkeys(("SIGNUP_DEADLINE", "STREAM_HEARTBEAT", "STREAM_MAX_AGE"), (*NUMBERS, "0")),
    **dict.fromkeys(("RELAY_FIRST_PAUSE", "RELAY_MAX_PAUSE"), (*NUMBERS, "0")),
    **dict.fromkeys(
        ("DATABASE_POOL_SIZE", "KAFKA_PARTITIONS", "KAFKA_REPLICATION", "KAFKA_BATCH_SIZE"), (*INTEGERS, "0")
    ),
    **dict.fromkeys(("DEAD_LETTER_RETENTION", "SIGNUP_RETENTION", "KAFKA_RETENTION_HOURS"), (*INTEGERS, "0", "999999")),
}


def cases() -> list[tuple[str, str]]:
    named = [name for name, _, _ in example_lines() if name not in TAKES_ANY_TEXT | OF_THE_LAUNCHER]
    return [(name, value) for name in named for value in INVALID.get(name, INTEGERS)]


@pytest.mark.parametrize(("name", "value"), cases(), ids=lambda each: each[:30])
def test_a_value_that_cannot_be_used_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), name: value})
    said = str(caught.value)
    assert said.startswith(f"{name} ")
    assert "\n" not in said
    assert len(said) < 600
    if is_secret(name):
        assert "hid" not in said.removeprefix(f"{name} can't be used").replace("password", "")
    else:
        assert value[:100].split(",")[-1].split(";")[0] in said


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("LOG_LEVEL", " Warning ", "WARNING"),
        ("LOG_FORMAT", "JSON", "json"),
        ("SIGNUP_CONFIRM", "None", "none"),
        ("DEBUG", "Off", False),
        ("SIGNUP_SERVICES", "auth, chat,  customer ,", ["auth", "chat", "customer"]),
        ("ALLOWED_HOSTS", "127.0.0.1, localhost", ["127.0.0.1", "localhost"]),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092, kafka-2:9092", "kafka-1:9092,kafka-2:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "[::1]:9092", "[::1]:9092"),
        ("DATABASE_POOL_SIZE", "", 8),
        ("KAFKA_PARTITIONS", " 12 ", 12),
        ("HEALTH_HOST", "::1", "::1"),
        ("GATEWAY_URL", "http://gateway:8080/", "http://gateway:8080"),
        ("TIME_ZONE", "Asia/Seoul", "Asia/Seoul"),
        ("OPENSEARCH_URL", "https://u:p%2Fw@host?ca_certs=/ca.pem", "https://u:p%2Fw@host?ca_certs=/ca.pem"),
        ("RESERVED_USER_IDS", "관리자, root", ["관리자", "root"]),
    ],
)
def test_an_unusual_but_unambiguous_value_is_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, meaning: object
) -> None:
    settings, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), name: value})
    assert settings[name] == meaning


def test_a_value_is_utf_8_whatever_the_locale_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The form in which os.environ has such bytes if the locale is C.
    as_ascii = "관리자".encode().decode("ascii", "surrogateescape")
    settings, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), "RESERVED_USER_IDS": as_ascii})
    assert settings["RESERVED_USER_IDS"] == ["관리자"]
    for name in ("RESERVED_USER_IDS", "VERSION", "EMAIL_URL"):
        with pytest.raises(ImproperlyConfigured, match=f"^{name} .*UTF-8"):
            load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), name: "\udcb9\udcce"})
