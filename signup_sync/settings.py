"""Every setting of every role. Each comes from the environment (or `.env`) and has a default that works for
`make run`; with PRODUCTION=true the ones that must not have a default are obligatory. `.env.example` lists them.
"""

import contextlib
import os
import re
import secrets
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from signup_sync.configuration import production
from signup_sync.configuration import settings_checks as checks
from signup_sync.configuration.database_urls import read_database_url
from signup_sync.configuration.environment import PORT_MAX, Environment
from signup_sync.local.running import running_settings

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment()
if (BASE_DIR / ".env").is_file():
    Environment.read_env(BASE_DIR / ".env")

# The most days that anything is kept: a hundred years. Beyond it, dates leave the calendar.
DAYS_MAX = 36_500

# True: secrets and addresses have no defaults, unsafe values are refused (docs/adr/0047), cookies and pages are for
# HTTPS alone. Default: false (`make run`).
PRODUCTION = env.bool("PRODUCTION", default=False)
# Django's debug pages, refused with PRODUCTION. Default: false, also for `make run`: what a developer sees is what a
# user sees.
DEBUG = env.bool("DEBUG", default=False)
# Where the embedded default keeps its databases, secret key and sockets. Default: var/ beside manage.py.
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / "var")))


# What `make run` tells of itself while it runs on this DATA_DIR: the defaults of Kafka, Redis and the gateway.
RUNNING_HERE = {} if PRODUCTION else running_settings(DATA_DIR)


def local_secret() -> str:
    """The secret key of a local installation, made once and kept, so that sessions outlive a restart."""
    path = DATA_DIR / "secret_key"
    try:
        make_private(DATA_DIR)
        if not path.exists():
            # Written whole under another name first: of roles that start together one wins, and all read its key.
            with tempfile.NamedTemporaryFile("w", dir=DATA_DIR) as file:
                file.write(secrets.token_urlsafe(50))
                file.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(file.name, path)
        key = path.read_bytes().strip()
    except OSError as error:
        raise ImproperlyConfigured(f"DATA_DIR {DATA_DIR} can't be written: {error.strerror}") from error
    if not re.fullmatch(rb"[!-~]{32,}", key):
        raise ImproperlyConfigured(
            f"{path} holds no secret key. Put the right one back, or remove it and start again, which makes a new one "
            f"and logs everybody out: rm {shlex.quote(str(path))}"
        )
    return key.decode("ascii")


def make_private(folder: Path) -> None:
    """Makes a folder that its owner alone can look into: the databases hold the passwords' hashes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def required_in_production(name: str, default: Any, read: Callable[..., Any] = env.str) -> Any:
    """The environment's value; without one the default, or an error where PRODUCTION is true."""
    return read(name) if PRODUCTION else read(name, default=default)


# Signs sessions, tickets and cookies: 50 random characters or more. In production it has no default, and processes that
# sign (`manage.py serve`) don't start without it; the others need none. Elsewhere it is made once, in DATA_DIR.
SECRET_KEY = env.str("SECRET_KEY", default="") or ("" if PRODUCTION else local_secret())
# Host names that this installation answers to, comma-separated; PUBLIC_URL's is always one of them.
ALLOWED_HOSTS: list[str] = required_in_production("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"], read=env.list)
checks.check_allowed_hosts(ALLOWED_HOSTS)
# Where the front posts: the gateway's address. Without a gateway, the one instance itself.
GATEWAY_URL = checks.read_http_url(
    "GATEWAY_URL", required_in_production("GATEWAY_URL", RUNNING_HERE.get("GATEWAY_URL", "http://127.0.0.1:8000"))
)
# The address under which people reach the pages, scheme://host[:port], https in production: the links in mails lead
# there, whatever host a request was made to, and plain HTTP is sent on to it. Default: GATEWAY_URL, which is the one
# address of `make run`.
PUBLIC_URL = checks.read_public_url(required_in_production("PUBLIC_URL", GATEWAY_URL), production=PRODUCTION)
if checks.host_of(PUBLIC_URL) not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(checks.host_of(PUBLIC_URL))
# Seconds that browsers refuse plain HTTP after each page (Strict-Transport-Security), whether for all hosts below
# PUBLIC_URL's too, and whether browsers may have it built in. Defaults: in production a year and both; elsewhere none.
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=365 * 24 * 3600 if PRODUCTION else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("HSTS_SUBDOMAINS", default=True)
SECURE_HSTS_PRELOAD = env.bool("HSTS_PRELOAD", default=True)
# In production a page that was asked for over plain HTTP is one redirect to PUBLIC_URL; the API refuses such a request.
SECURE_SSL_REDIRECT = PRODUCTION
SECURE_SSL_HOST = PUBLIC_URL.partition("://")[2]
# Origins (scheme://host) that may post forms when a proxy ends TLS, comma-separated. Default: none.
CSRF_TRUSTED_ORIGINS = checks.read_origins(env.list("CSRF_TRUSTED_ORIGINS", default=[]))

# Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses or networks, with spaces or commas between
# them. They are the gateway, and what stands before it. Default: this host.
TRUSTED_PROXIES = checks.read_proxies(env.str("TRUSTED_PROXIES", default="127.0.0.1 ::1"))

# --- Slow and numerous clients (docs/adr/0049) -----------------------------------------------------------------

# Seconds that a connection may stay open without a request, before the first one and between two. More than the
# gateway keeps one (30 s, deploy/Caddyfile): a POST into a closing connection would be lost. Default: 60.
CONNECTION_IDLE_TIMEOUT = env.int("CONNECTION_IDLE_TIMEOUT", default=60, least=1)
# Seconds in which the line and headers of a request must arrive, from the first byte, and then all of its body. A
# client that is slower gets 408. Defaults: 10 and 30.
REQUEST_HEAD_TIMEOUT = env.float("REQUEST_HEAD_TIMEOUT", default=10.0, least=0.01)
REQUEST_BODY_TIMEOUT = env.float("REQUEST_BODY_TIMEOUT", default=30.0, least=0.01)
# Seconds that an answer may wait for a client that does not read it; then the connection ends. Default: 30.
RESPONSE_STALL_TIMEOUT = env.float("RESPONSE_STALL_TIMEOUT", default=30.0, least=0.01)
# WebSockets, and streams of the API, that one process holds open for one sign-up and for one address (of IPv6, a
# network of 64 bits); the next one is refused and told when to try again. 0 is any number. Defaults: 10 and 200.
HELD_PER_SIGNUP = env.int("HELD_PER_SIGNUP", default=10)
HELD_PER_ADDRESS = env.int("HELD_PER_ADDRESS", default=200)

# --- The services and where each keeps its own -----------------------------------------------------------------

# The services that must know each user, in the order in which the lights stand. A new participant is added here.
SIGNUP_SERVICES = checks.read_services(env.list("SIGNUP_SERVICES", default=["auth", "chat", "customer"]))
# What each `manage.py consume_events <service>` runs: the dotted path of its eventbus.Subscription,
# or of a tuple of them.
EVENT_CONSUMERS = {
    "auth": "authsvc.signups.answers.verdicts",
    "chat": "chatsvc.handlers.subscriptions",
    "customer": "customersvc.handlers.subscriptions",
}

# Connections that one process may hold to one PostgreSQL database. Default: 8.
DATABASE_POOL_SIZE = env.int("DATABASE_POOL_SIZE", default=8, least=1)


def database(service: str) -> dict[str, Any]:
    """The database of one service: `<SERVICE>_DATABASE_URL`, by default an SQLite file in DATA_DIR."""
    name = f"{service.upper()}_DATABASE_URL"
    default = f"sqlite:///{quote(str(DATA_DIR / service))}.sqlite3"
    config = read_database_url(name, required_in_production(name, default))
    # Django would have tests of another service's database wait for `default`: no service needs another's.
    config["TEST"] = {"DEPENDENCIES": []}
    if config["ENGINE"].endswith("sqlite3"):
        make_private(Path(config["NAME"]).parent)
        # One writer at a time, told so when the transaction begins: a read that turns into a write half-way
        # cannot wait and fails at once. A connection that closes last rewrites the file, so they stay open.
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            **config["OPTIONS"],
        }
        config["CONN_MAX_AGE"] = None
        config["TEST"]["NAME"] = str(DATA_DIR / f"test_{service}.sqlite3")
    else:
        config["OPTIONS"] |= {
            # Its pauses between two tries to connect double until this time has passed, 300 s by default: as long as
            # PostgreSQL was away, the pool would stay away once more.
            "pool": {"min_size": 1, "max_size": DATABASE_POOL_SIZE, "timeout": 3, "reconnect_timeout": 2}
        }
    return config


# One database a service. `default` is auth's: it has the users, so sessions and the admin's log are there too.
DATABASES = {"default": database("auth"), "chat": database("chat"), "customer": database("customer")}
DATABASE_ROUTERS = ["signup_sync.routers.ServiceRouter"]
# Which app's tables are in which database; every other app's are in `default`.
SERVICE_DATABASES = {"chatsvc": "chat", "customersvc": "customer"}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Kafka -----------------------------------------------------------------------------------------------------

# host:port, comma-separated. Default: the embedded broker of the `make run` that runs here; without one whatever needs
# Kafka says so and ends.
KAFKA_BOOTSTRAP_SERVERS = checks.read_brokers(
    required_in_production("KAFKA_BOOTSTRAP_SERVERS", RUNNING_HERE.get("KAFKA_BOOTSTRAP_SERVERS", ""))
)
# True: the broker is librdkafka's own, which makes its topics on first use and is polled often. Default: false, but
# for the one of `make run`.
KAFKA_EMBEDDED = env.bool(
    "KAFKA_EMBEDDED", default=RUNNING_HERE.get("KAFKA_BOOTSTRAP_SERVERS") == KAFKA_BOOTSTRAP_SERVERS
)
# Further librdkafka settings for every client, as a JSON object (TLS, SASL; .env.example has one). Default: none.
KAFKA_CLIENT_CONFIG = checks.read_client_config(env.json("KAFKA_CLIENT_CONFIG", default={}))
# Partitions and copies of the topics that the project makes. Defaults: 4 and 1 (production wants 3 copies).
KAFKA_PARTITIONS = env.int("KAFKA_PARTITIONS", default=4, least=1)
KAFKA_REPLICATION = env.int("KAFKA_REPLICATION", default=1, least=1, most=32767)
# Put before every topic's and group's name, so that tests and installations can share a cluster. Default: none.
KAFKA_PREFIX = checks.read_kafka_prefix(env.str("KAFKA_PREFIX", default=""))
# Hours that Kafka keeps the messages of a topic that the project makes; a topic that is there keeps what it has.
# Default: 168 (7 days).
KAFKA_RETENTION_HOURS = env.int("KAFKA_RETENTION_HOURS", default=168, least=1, most=24 * DAYS_MAX)
# The most messages that one batch takes. Default: 500.
KAFKA_BATCH_SIZE = env.int("KAFKA_BATCH_SIZE", default=500, least=1)
# Days that a dead letter is kept, whatever was done about it, from when it was put aside; `manage.py purge` deletes it
# then. More than Kafka keeps the dead-letter topics (7 days by default). Default: 30.
DEAD_LETTER_RETENTION = env.int("DEAD_LETTER_RETENTION", default=30, least=1, most=DAYS_MAX)

# --- Redis -----------------------------------------------------------------------------------------------------

# The projection, the wake-ups, the relays' leases and the channel layer: redis://user:password@host:port/0, rediss://
# over TLS (certificate and host name are checked; ?ssl_ca_certs=/path names a CA of one's own), or unix:///path.
REDIS_URL: str = required_in_production("REDIS_URL", RUNNING_HERE.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
checks.check_redis_url(REDIS_URL)
CHANNEL_LAYERS = {
    "default": {
        # PubSub rather than the list-based layer: see docs/adr/0004.
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py's own timeout of 5 s would end every quiet socket.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}]},
    }
}

# --- The sign-up -----------------------------------------------------------------------------------------------

# The settings from here to RELAY_RATE are live settings: they hold until an administrator sets another value, which
# every process uses within a second (livesettings). Exceptions: SIGNUP_CONFIRM_HOURS, STREAM_MAX_AGE,
# TICKET_MAX_AGE and PROJECTION_TTL.
# False: nobody new is taken; what has begun goes on. Default: true.
SIGNUP_OPEN = env.bool("SIGNUP_OPEN", default=True)
# Whether an address must be confirmed before the account exists: "none", or "mail", by a link that is mailed to it.
# With "mail", new and existing users are answered alike (docs/adr/0042). Default: none.
SIGNUP_CONFIRM = env.choice("SIGNUP_CONFIRM", ("none", "mail"), default="none")
# Hours that a sign-up waits for its confirmation; then it is deleted, and its link has expired. Default: 24.
SIGNUP_CONFIRM_HOURS = env.int("SIGNUP_CONFIRM_HOURS", default=24, least=1, most=24 * DAYS_MAX)
# False: page and API say that a service refused, and not why. Default: true.
SIGNUP_REASONS = env.bool("SIGNUP_REASONS", default=True)
# Sign-ups that are taken in a minute from one address, for one user ID, and in all; 0 is any number. Defaults: 60, 10
# and 0 in production, elsewhere 0: who tries it, or tests it, is one address.
RATE_LIMIT_ADDRESS = env.int("RATE_LIMIT_ADDRESS", default=60 if PRODUCTION else 0)
RATE_LIMIT_USER_ID = env.int("RATE_LIMIT_USER_ID", default=10 if PRODUCTION else 0)
RATE_LIMIT_TOTAL = env.int("RATE_LIMIT_TOTAL", default=0)
# Logins, and requests for a new password, that are taken in a minute from one address; 0 is any number. Defaults: 30
# and 5 in production, elsewhere 0.
RATE_LIMIT_LOGIN = env.int("RATE_LIMIT_LOGIN", default=30 if PRODUCTION else 0)
RATE_LIMIT_PASSWORD = env.int("RATE_LIMIT_PASSWORD", default=5 if PRODUCTION else 0)
# Failed logins to one account from one address that are taken in 15 minutes, and passwords that are tried at one
# confirmation link; 0 is any number. Default: 10.
RATE_LIMIT_FAILED_LOGIN = env.int("RATE_LIMIT_FAILED_LOGIN", default=10)
# Mails that are sent to one mailbox in an hour at the request of one network address: so many to confirm sign-ups, and
# so many with a link to a new password. At the request of all addresses together: four times as many of each. 0 is any
# number. Default: 3.
RATE_LIMIT_CONFIRM = env.int("RATE_LIMIT_CONFIRM", default=3)
# Seconds until the page and the stream call a sign-up delayed. Default: 30.
SIGNUP_DEADLINE = env.float("SIGNUP_DEADLINE", default=30.0, least=0.01)
# Seconds between two comments on a quiet stream, and between two readings of the state behind it. Default: 15.
STREAM_HEARTBEAT = env.float("STREAM_HEARTBEAT", default=15.0, least=0.01)
# Seconds after which a stream ends and the client resumes. Default: 600.
STREAM_MAX_AGE = env.float("STREAM_MAX_AGE", default=600.0, least=0.01)
# Seconds that a ticket opens its sign-up. Default: 3600.
TICKET_MAX_AGE = env.int("TICKET_MAX_AGE", default=3600, least=1)
# Seconds that the projection of a sign-up stays in Redis after its last change. Default: 3600.
PROJECTION_TTL = env.int("PROJECTION_TTL", default=3600, least=1)
# Seconds from an unanswered event to the next, first and most; it doubles in between. Defaults: 5 and 20.
RELAY_FIRST_PAUSE = env.float("RELAY_FIRST_PAUSE", default=5.0, least=0.01)
RELAY_MAX_PAUSE = env.float("RELAY_MAX_PAUSE", default=20.0, least=0.01)
# Tries until a sign-up is stalled. 33 are 10 minutes' worth at the default pauses. Default: 33.
RELAY_MAX_ATTEMPTS = env.int("RELAY_MAX_ATTEMPTS", default=33, least=1)
# The most events that one relay sends again in a second. Default: 500.
RELAY_RATE = env.int("RELAY_RATE", default=500, least=1)
# User IDs that nobody can sign up with, nor with one that looks the same; an administrator may still give one to
# somebody (docs/adr/0039). Comma-separated. Default: those that people take for the operator of the installation.
RESERVED_USER_IDS: list[str] = env.list(
    "RESERVED_USER_IDS",
    default=[
        "abuse", "admin", "administrator", "anonymous", "help", "hostmaster", "noreply", "null", "official", "operator",
        "postmaster", "root", "security", "staff", "superuser", "support", "sysadmin", "system", "undefined",
        "webmaster", "관리자", "운영자",
    ],
)  # fmt: skip
# Days that a complete sign-up is kept; `manage.py purge` deletes it then. Longer than anything can come again that is
# about it, which is checked at start (authsvc.signups.retention). Default: 90.
SIGNUP_RETENTION = env.int("SIGNUP_RETENTION", default=90, least=1, most=DAYS_MAX)
# Port of a consumer's or relay's health page and /metrics on HEALTH_HOST; 0 is none. The web process has its own.
HEALTH_PORT = env.int("HEALTH_PORT", default=0, most=PORT_MAX)
HEALTH_HOST = checks.read_address("HEALTH_HOST", env.str("HEALTH_HOST", default="127.0.0.1"))
# What the page of the instances calls this web process: web, or auth for auth's own behind the gateway. Default: web.
WEB_ROLE = env.choice("WEB_ROLE", ("web", "auth"), default="web")
# What it says runs here, a commit for example. Default: the version in pyproject.toml, which images lack.
VERSION = env.str("VERSION", default="0.1.0")

# --- Passwords -------------------------------------------------------------------------------------------------

# argon2id at OWASP's parameters: 19 MiB, 2 passes, 1 lane. Only a benchmark has a reason to change them.
ARGON2_MEMORY_KIB = env.int("ARGON2_MEMORY_KIB", default=19 * 1024, least=8)
ARGON2_TIME_COST = env.int("ARGON2_TIME_COST", default=2, least=1)
# Passwords that may wait to be hashed; the next sign-up gets 503 with Retry-After. Default: 400 (about 5 s' worth).
HASH_QUEUE_LIMIT = env.int("HASH_QUEUE_LIMIT", default=400)
PASSWORD_HASHERS = ["authsvc.accounts.passwords.Argon2idHasher"]
# One policy, wherever a password is set (docs/adr/0045).
AUTH_PASSWORD_VALIDATORS = [{"NAME": "authsvc.accounts.passwords.PasswordPolicy"}]
# Seconds that the link of a password reset works.
PASSWORD_RESET_TIMEOUT = 3600
AUTH_USER_MODEL = "authsvc.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "account"
LOGOUT_REDIRECT_URL = "login"

# optional: everybody may turn two-factor authentication on. required: staff must, before they can use the
# administration or sign up administrators by the API. Default: optional.
ADMIN_TWO_FACTOR = env.choice("ADMIN_TWO_FACTOR", ("optional", "required"), default="optional")
# What an authenticator app calls this installation.
OTP_TOTP_ISSUER = "Signup Sync"

# --- Django ----------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    # Behind `runserver` alone; the roles would import it for nothing.
    *(["daphne"] if DEBUG else []),
    "signup_sync",
    "signup_sync.front",
    "authsvc",
    "chatsvc",
    "customersvc",
    "eventbus",
    "livesettings",
    "channels",
    "signup_sync.apps.AdministrationConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
]
# All of these are async-capable: a sync-only one would hold a thread for every request.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "signup_sync.middleware.page_middleware.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "signup_sync.middleware.page_middleware.MeasuredFields",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "signup_sync.middleware.page_middleware.Authentication",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "signup_sync.urls"
ASGI_APPLICATION = "signup_sync.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LANGUAGE_CODE = "en"
# Those whose catalogue is complete (tests/unit/test_translations.py). The browser's choice, or the page's switch.
LANGUAGES = [("en", "English"), ("ko", "한국어")]
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_SAMESITE = "Lax"
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = checks.read_time_zone(env.str("TIME_ZONE", default="UTC"))
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Seconds that a login lasts. Default: 1209600 (14 days).
SESSION_COOKIE_AGE = env.int("SESSION_COOKIE_AGE", default=14 * 24 * 3600, least=1)
# Seconds that a login opens the administration, from the login and from the last page opened there; then staff log in
# again. Defaults: 43200 (12 hours) and 3600.
ADMIN_SESSION_AGE = env.int("ADMIN_SESSION_AGE", default=12 * 3600, least=1)
ADMIN_SESSION_IDLE = env.int("ADMIN_SESSION_IDLE", default=3600, least=1)
SESSION_ENGINE = "authsvc.accounts.sessions"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = PRODUCTION
# Browsers take a cookie of such a name over HTTPS alone and from this very host, so that neither a host beside it nor
# somebody in between can plant one. Without HTTPS there would be no cookie at all.
COOKIE_PREFIX = "__Host-" if PRODUCTION else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}csrftoken"
LANGUAGE_COOKIE_NAME = f"{COOKIE_PREFIX}django_language"
MESSAGE_STORAGE = "signup_sync.middleware.message_storage.Storage"
# No script of ours reads one.
CSRF_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "signup_sync.middleware.csrf_failure.csrf_failure"
# A page's address may hold a ticket: other sites are told the origin alone, and so are our own logs.
SECURE_REFERRER_POLICY = "strict-origin"
# A page that another site's page opened, or that ours opened, shares no browsing context with it.
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"

# --- Mail ------------------------------------------------------------------------------------------------------

# The server that takes mail, as a URL: smtp+tls://user:password@host:587. Default: none, a mail is written to the web
# process's output; with PRODUCTION=true, where a link to a new password must stand in no log, this host's port 25.
vars().update(
    checks.read_mail_server(env.str("EMAIL_URL", default="smtp://localhost:25" if PRODUCTION else "consolemail://"))
)
# Whether a mail server was named: SIGNUP_CONFIRM=mail is refused in production without one.
HAS_MAIL_SERVER = bool(env.str("EMAIL_URL", default=""))
# Seconds that the mail server may take to be reached and to answer, each time. Default: 10.
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", default=10, least=1)
# Mails that may wait in one process, each for an hour at most while the mail server is away; a further one is not sent,
# and the log says so. Default: 1000.
MAIL_QUEUE_LIMIT = env.int("MAIL_QUEUE_LIMIT", default=1000)
# Who writes. Default: signup@ and the host of PUBLIC_URL.
DEFAULT_FROM_EMAIL = checks.read_sender(env.str("DEFAULT_FROM_EMAIL", default=f"signup@{checks.host_of(PUBLIC_URL)}"))

# --- Logs ------------------------------------------------------------------------------------------------------

# Least level that is written; security events (docs/security-events.md) are written at every level. Default: INFO.
LOG_LEVEL = env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
# json (an object a line) or console (for people). Default: console where stderr is a terminal, else json.
LOG_FORMAT = env.choice("LOG_FORMAT", ("json", "console"), default="console" if sys.stderr.isatty() else "json")
# Everybody's lines go one way, on which they get their form and lose their tickets (docs/adr/0020).
_PASSED_ON = {"handlers": [], "propagate": True}
LOGGING_CONFIG = "runtime.logs.configure"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "runtime.logs.formatter", "kind": LOG_FORMAT}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # These would have handlers of their own, by Django's and the server's defaults.
        **dict.fromkeys(["django", "django.server", "uvicorn", "uvicorn.error", "uvicorn.access"], _PASSED_ON),
        # Its events are at INFO.
        "security": {"level": "INFO"},
    },
}

if PRODUCTION:
    production.check(globals())
