"""All settings of all roles. Each is read from the environment (or `.env`) and has a default that works for `make run`;
with PRODUCTION=true, the settings that have no safe default are required. `.env.example` lists them.
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

from signup_sync import __version__
from signup_sync.configuration import production
from signup_sync.configuration import settings_checks as checks
from signup_sync.configuration.database_urls import read_database_url
from signup_sync.configuration.environment import PORT_MAX, Environment
from signup_sync.local.running import running_settings
from signup_sync.participants import PACKAGES, PARTICIPANTS

PACKAGE = Path(__file__).resolve().parent
# Folder of .env and of the local installation's data, and folder of the templates, styles and translations: those of
# the source tree or, where the project was installed as a package, the current directory and the package's own.
BASE_DIR, RESOURCES = PACKAGE.parent, PACKAGE.parent
if (PACKAGE / "resources").is_dir():
    BASE_DIR, RESOURCES = Path.cwd(), PACKAGE / "resources"
env = Environment()
if (BASE_DIR / ".env").is_file():
    Environment.read_env(BASE_DIR / ".env")

# The longest retention, in days: 100 years. Longer ones would overflow the range of dates.
DAYS_MAX = 36_500

# True: secrets and addresses have no defaults, unsafe values are refused (docs/adr/0047), and cookies and pages require
# HTTPS. Default: false (`make run`).
PRODUCTION = env.bool("PRODUCTION", default=False)
# Whether to show Django's debug pages; refused with PRODUCTION. Default: false, even for `make run`, so that developers
# see the same pages as users.
DEBUG = env.bool("DEBUG", default=False)
# Folder of the local installation's databases, secret key and sockets. Default: var/ beside manage.py.
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / "var")))


# Addresses that `make run` publishes while it runs on this DATA_DIR: the defaults for Kafka, Redis and the gateway.
RUNNING_HERE = {} if PRODUCTION else running_settings(DATA_DIR)


def local_secret() -> str:
    """Return the secret key of a local installation. It is generated once and stored, so sessions survive a restart."""
    path = DATA_DIR / "secret_key"
    try:
        make_private(DATA_DIR)
        if not path.exists():
            # Write a complete file under another name first: when roles start at the same time, one of them wins and
            # all of them read its key.
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
            f"{path} doesn't contain a valid secret key. Restore the right one, or remove the file and start again, "
            f"which generates a new key and logs everybody out: rm {shlex.quote(str(path))}"
        )
    return key.decode("ascii")


def make_private(folder: Path) -> None:
    """Create a folder that only its owner can read, because the databases contain password hashes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def required_in_production(name: str, default: Any, read: Callable[..., Any] = env.str) -> Any:
    """Return the environment's value, or else the default; with PRODUCTION=true, raise an error if it is missing."""
    return read(name) if PRODUCTION else read(name, default=default)


# Signs sessions, tickets and cookies: at least 50 random characters. In production it has no default: processes that
# sign (`manage.py serve`) don't start without it, and the others don't need it. Elsewhere it is generated once and
# stored in DATA_DIR.
SECRET_KEY = env.str("SECRET_KEY", default="") or ("" if PRODUCTION else local_secret())
# Other keys whose signatures are accepted while SECRET_KEY is being replaced (docs/operations.md), comma-separated.
# Default: none.
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# Host names that this installation answers to, comma-separated; PUBLIC_URL's host is always included.
ALLOWED_HOSTS: list[str] = required_in_production("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"], read=env.list)
checks.check_allowed_hosts(ALLOWED_HOSTS)
# The gateway's address, to which the front sends its requests. Default: the web process itself, without a gateway.
GATEWAY_URL = checks.read_http_url(
    "GATEWAY_URL", required_in_production("GATEWAY_URL", RUNNING_HERE.get("GATEWAY_URL", "http://127.0.0.1:8000"))
)
# The public address of the pages, scheme://host[:port], https in production. Links in mails use it regardless of the
# host of the request, and plain HTTP is redirected to it. Default: GATEWAY_URL, the only address of `make run`.
PUBLIC_URL = checks.read_public_url(required_in_production("PUBLIC_URL", GATEWAY_URL), production=PRODUCTION)
if checks.host_of(PUBLIC_URL) not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(checks.host_of(PUBLIC_URL))
# Strict-Transport-Security: seconds for which browsers refuse plain HTTP after each page, whether that includes all
# subdomains of PUBLIC_URL's host, and whether browsers may preload it. Defaults: one year in production, elsewhere 0
# (no header); true; true.
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=365 * 24 * 3600 if PRODUCTION else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("HSTS_SUBDOMAINS", default=True)
SECURE_HSTS_PRELOAD = env.bool("HSTS_PRELOAD", default=True)
# In production, requests for pages over plain HTTP are redirected to PUBLIC_URL; the API refuses them.
SECURE_SSL_REDIRECT = PRODUCTION
SECURE_SSL_HOST = PUBLIC_URL.partition("://")[2]
# Origins (scheme://host) that may post forms when a proxy terminates TLS, comma-separated. Default: none.
CSRF_TRUSTED_ORIGINS = checks.read_origins(env.list("CSRF_TRUSTED_ORIGINS", default=[]))

# Proxies whose X-Forwarded-* headers are trusted: the gateway and any proxies in front of it, as addresses or networks
# separated by spaces or commas. Default: this host.
TRUSTED_PROXIES = checks.read_proxies(env.str("TRUSTED_PROXIES", default="127.0.0.1 ::1"))

# --- Slow and numerous clients (docs/adr/0049) -----------------------------------------------------------------

# Seconds for which a connection may stay idle, before its first request and between two requests. It must exceed the
# gateway's keep-alive (30 s, deploy/Caddyfile): a POST sent on a connection that is being closed would be lost.
# Default: 60.
CONNECTION_IDLE_TIMEOUT = env.int("CONNECTION_IDLE_TIMEOUT", default=60, least=1)
# Seconds, from the first byte, within which a request's line and headers must arrive, and then within which its whole
# body must. Slower clients get 408. Defaults: 10 and 30.
REQUEST_HEAD_TIMEOUT = env.float("REQUEST_HEAD_TIMEOUT", default=10.0, least=0.01)
REQUEST_BODY_TIMEOUT = env.float("REQUEST_BODY_TIMEOUT", default=30.0, least=0.01)
# Seconds for which a response may wait for a client that doesn't read it; then the connection is closed. Default: 30.
RESPONSE_STALL_TIMEOUT = env.float("RESPONSE_STALL_TIMEOUT", default=30.0, least=0.01)
# WebSockets and API streams that one process holds open per sign-up and per client address (for IPv6, per /64 network).
# Further ones are refused and told when to retry. 0 means unlimited. Defaults: 10 and 200.
HELD_PER_SIGNUP = env.int("HELD_PER_SIGNUP", default=10)
HELD_PER_ADDRESS = env.int("HELD_PER_ADDRESS", default=200)

# --- The services and their databases --------------------------------------------------------------------------

# SCIM servers to provision, as name=URL pairs, comma-separated; the URL is the one that /Users follows. Each is a
# service with that name and its own light. Default: none.
SCIM_SERVERS = checks.read_scim_servers(env.list("SCIM_SERVERS", default=[]))
# Their bearer tokens, as name=token pairs, comma-separated. Only processes that consume their events need them.
# Default: none.
SCIM_TOKENS = checks.read_scim_tokens(env.list("SCIM_TOKENS", default=[]), SCIM_SERVERS)
# OpenSearch, into which `manage.py index_events` indexes events: https://user:password@host:port, with
# ?ca_certs=/path for a private CA. Default: none, and nothing is indexed.
OPENSEARCH_URL = checks.read_opensearch_url(env.str("OPENSEARCH_URL", default=""))
# Whether events are indexed. All roles must agree, so that the search's dead letters are collected and its process and
# lag are shown; only the indexer needs OPENSEARCH_URL. Default: whether OPENSEARCH_URL is set.
EVENT_SEARCH = env.bool("EVENT_SEARCH", default=bool(OPENSEARCH_URL))
# The prefix of the names of its indices; the day follows. Installations that share an OpenSearch need different ones.
# Default: signup-events.
OPENSEARCH_INDEX = checks.read_index_name(env.str("OPENSEARCH_INDEX", default="signup-events"))
# Days for which the events of a day stay in OpenSearch; then the indexer deletes their index. Default: 30.
OPENSEARCH_RETENTION_DAYS = env.int("OPENSEARCH_RETENTION_DAYS", default=30, least=1, most=DAYS_MAX)
# The services that store each user, in the order of their lights on the page. Default: auth and the participants of
# signup_sync/participants.py. A service that is not one of these runs elsewhere. SCIM servers that the setting doesn't
# name follow at the end.
SIGNUP_SERVICES = checks.read_services(env.list("SIGNUP_SERVICES", default=["auth", *PARTICIPANTS]))
SIGNUP_SERVICES += [name for name in SCIM_SERVERS if name not in SIGNUP_SERVICES]
# What `manage.py consume_events <service>` runs, per service: the dotted path of an eventbus.Subscription, of a tuple
# of them, or of a function that returns them for the service's name.
EVENT_CONSUMERS = {
    "auth": "authsvc.signups.answers.verdicts",
    **{service: f"{package}.handlers.subscriptions" for service, package in PACKAGES.items()},
    **dict.fromkeys(SCIM_SERVERS, "scimsvc.handlers.subscriptions_of_server"),
}
# Consumer groups that read events without being a service, by name: the dotted path of a function that returns the
# subscription.
EVENT_READERS = {"search": "eventsearch.indexing.subscription"} if EVENT_SEARCH else {}
# Services that `manage.py consume_events <name>` runs together, in one process.
CONSUMED_TOGETHER = {"scim": list(SCIM_SERVERS)} if SCIM_SERVERS else {}

# Size of each process's connection pool per PostgreSQL database. Default: 8.
DATABASE_POOL_SIZE = env.int("DATABASE_POOL_SIZE", default=8, least=1)


def database(service: str) -> dict[str, Any]:
    """Return the database settings of one service: `<SERVICE>_DATABASE_URL`, by default an SQLite file in DATA_DIR."""
    name = f"{service.upper()}_DATABASE_URL"
    default = f"sqlite:///{quote(str(DATA_DIR / service))}.sqlite3"
    config = read_database_url(name, required_in_production(name, default))
    # By default, Django makes every test database depend on `default`; no service needs another's database.
    config["TEST"] = {"DEPENDENCIES": []}
    if config["ENGINE"].endswith("sqlite3"):
        make_private(Path(config["NAME"]).parent)
        # SQLite allows one writer at a time. IMMEDIATE takes the write lock when a transaction begins; a read that
        # upgrades to a write would fail at once instead of waiting. Connections stay open, because closing the last
        # one checkpoints the write-ahead log into the database file.
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
            # The pool doubles its pause between connection attempts until reconnect_timeout has passed (300 s by
            # default), so after an outage of PostgreSQL it could stay disconnected for as long again.
            "pool": {"min_size": 1, "max_size": DATABASE_POOL_SIZE, "timeout": 3, "reconnect_timeout": 2}
        }
    return config


# One database per service. `default` is auth's: it holds the users, and therefore the sessions and the admin log too.
DATABASES = {"default": database("auth"), **{service: database(service) for service in PARTICIPANTS}}
# All SCIM services share one, which only an installation with SCIM servers needs.
if SCIM_SERVERS or env.str("SCIM_DATABASE_URL", default=""):
    DATABASES["scim"] = database("scim")
DATABASE_ROUTERS = ["signup_sync.routers.ServiceRouter"]
# The database of each app's tables; the tables of all other apps are in `default`.
SERVICE_DATABASES = {**{package: service for service, package in PACKAGES.items()}, "scimsvc": "scim"}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Kafka -----------------------------------------------------------------------------------------------------

# The brokers as host:port, comma-separated. Default: the embedded broker of a `make run` on this DATA_DIR; without one,
# processes that need Kafka exit with an error.
KAFKA_BOOTSTRAP_SERVERS = checks.read_brokers(
    required_in_production("KAFKA_BOOTSTRAP_SERVERS", RUNNING_HERE.get("KAFKA_BOOTSTRAP_SERVERS", ""))
)
# Whether the broker is the one embedded in librdkafka, which creates topics on first use and is polled often. Default:
# true for the broker of `make run`, otherwise false.
KAFKA_EMBEDDED = env.bool(
    "KAFKA_EMBEDDED", default=RUNNING_HERE.get("KAFKA_BOOTSTRAP_SERVERS") == KAFKA_BOOTSTRAP_SERVERS
)
# Further librdkafka settings for every client, as a JSON object (TLS, SASL; see .env.example). Default: none.
KAFKA_CLIENT_CONFIG = checks.read_client_config(env.json("KAFKA_CLIENT_CONFIG", default={}))
# Partitions and replicas of the topics that the project creates. Defaults: 4 and 1 (use 3 replicas in production).
KAFKA_PARTITIONS = env.int("KAFKA_PARTITIONS", default=4, least=1)
KAFKA_REPLICATION = env.int("KAFKA_REPLICATION", default=1, least=1, most=32767)
# Prefix of every topic and group name, so that tests and installations can share a cluster. Default: none.
KAFKA_PREFIX = checks.read_kafka_prefix(env.str("KAFKA_PREFIX", default=""))
# Retention of the topics that the project creates, in hours; existing topics are not changed. Default: 168 (7 days).
KAFKA_RETENTION_HOURS = env.int("KAFKA_RETENTION_HOURS", default=168, least=1, most=24 * DAYS_MAX)
# The maximum number of messages in one batch. Default: 500.
KAFKA_BATCH_SIZE = env.int("KAFKA_BATCH_SIZE", default=500, least=1)
# Days for which a dead letter is kept from the time it was dead-lettered, whatever its state; then `manage.py purge`
# deletes it. It must exceed Kafka's retention of the dead-letter topics (7 days by default). Default: 30.
DEAD_LETTER_RETENTION = env.int("DEAD_LETTER_RETENTION", default=30, least=1, most=DAYS_MAX)

# --- Redis -----------------------------------------------------------------------------------------------------

# Redis holds the projection, the wake-ups, the stream relays' leases and the channel layer:
# redis://user:password@host:port/0, rediss:// for TLS (certificate and host name are verified; ?ssl_ca_certs=/path
# names a private CA), or unix:///path.
REDIS_URL: str = required_in_production("REDIS_URL", RUNNING_HERE.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
checks.check_redis_url(REDIS_URL)
CHANNEL_LAYERS = {
    "default": {
        # docs/adr/0004 explains why PubSub is used rather than the list-based layer.
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py's default timeout of 5 s would close every quiet socket.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}]},
    }
}

# --- The sign-up -----------------------------------------------------------------------------------------------

# The settings from here to RELAY_RATE are live settings: defaults until an administrator sets another value, which
# web, auth and the relay use within a second (livesettings). Exceptions: SIGNUP_CONFIRM_HOURS, STREAM_MAX_AGE,
# TICKET_MAX_AGE and PROJECTION_TTL.
# Whether new sign-ups are accepted; those that have begun continue either way. Default: true.
SIGNUP_OPEN = env.bool("SIGNUP_OPEN", default=True)
# Whether an email address must be confirmed before the account is created: "none", or "mail" for a mailed link. With
# "mail", the answers for new and existing users are the same (docs/adr/0042). Default: none.
SIGNUP_CONFIRM = env.choice("SIGNUP_CONFIRM", ("none", "mail"), default="none")
# Hours for which a sign-up waits for its confirmation; then its link expires and it is deleted. Default: 24.
SIGNUP_CONFIRM_HOURS = env.int("SIGNUP_CONFIRM_HOURS", default=24, least=1, most=24 * DAYS_MAX)
# Whether the page and the API give a service's reason for refusing a user. Default: true.
SIGNUP_REASONS = env.bool("SIGNUP_REASONS", default=True)
# Sign-ups accepted per minute from one address, for one user ID, and in total; 0 means unlimited. Defaults: 60, 10 and
# 0 in production, elsewhere 0, because a developer or a test is a single address.
RATE_LIMIT_ADDRESS = env.int("RATE_LIMIT_ADDRESS", default=60 if PRODUCTION else 0)
RATE_LIMIT_USER_ID = env.int("RATE_LIMIT_USER_ID", default=10 if PRODUCTION else 0)
RATE_LIMIT_TOTAL = env.int("RATE_LIMIT_TOTAL", default=0)
# Logins and password-reset requests accepted per minute from one address; 0 means unlimited. Defaults: 30 and 5 in
# production, elsewhere 0.
RATE_LIMIT_LOGIN = env.int("RATE_LIMIT_LOGIN", default=30 if PRODUCTION else 0)
RATE_LIMIT_PASSWORD = env.int("RATE_LIMIT_PASSWORD", default=5 if PRODUCTION else 0)
# Failed logins allowed in 15 minutes to one account from one address, and passwords that may be tried at one
# confirmation link; 0 means unlimited. Default: 10.
RATE_LIMIT_FAILED_LOGIN = env.int("RATE_LIMIT_FAILED_LOGIN", default=10)
# Mails sent per hour to one mailbox at the request of one network address, counted separately for confirmations, for
# password resets, and for notices that a new address was requested. For all addresses together, the limit is four times
# as high. 0 means unlimited. Default: 3.
RATE_LIMIT_CONFIRM = env.int("RATE_LIMIT_CONFIRM", default=3)
# Seconds after which the page and the stream call a sign-up delayed. Default: 30.
SIGNUP_DEADLINE = env.float("SIGNUP_DEADLINE", default=30.0, least=0.01)
# Seconds between heartbeat comments on a quiet stream, and between re-reads of the state behind it. Default: 15.
STREAM_HEARTBEAT = env.float("STREAM_HEARTBEAT", default=15.0, least=0.01)
# Seconds after which a stream is ended, so that the client reconnects and resumes. Default: 600.
STREAM_MAX_AGE = env.float("STREAM_MAX_AGE", default=600.0, least=0.01)
# Seconds for which a ticket grants access to its sign-up. Default: 3600.
TICKET_MAX_AGE = env.int("TICKET_MAX_AGE", default=3600, least=1)
# Seconds for which a sign-up's projection stays in Redis after its last change. Default: 3600.
PROJECTION_TTL = env.int("PROJECTION_TTL", default=3600, least=1)
# Seconds before an unanswered event is sent again: the first pause, which doubles each time, and the longest. Defaults:
# 5 and 20.
RELAY_FIRST_PAUSE = env.float("RELAY_FIRST_PAUSE", default=5.0, least=0.01)
RELAY_MAX_PAUSE = env.float("RELAY_MAX_PAUSE", default=20.0, least=0.01)
# Attempts after which a sign-up is stalled. At the default pauses, 33 attempts take 10 minutes. Default: 33.
RELAY_MAX_ATTEMPTS = env.int("RELAY_MAX_ATTEMPTS", default=33, least=1)
# The maximum number of events that one relay resends per second. Default: 500.
RELAY_RATE = env.int("RELAY_RATE", default=500, least=1)
# User IDs that are rejected at sign-up, together with their lookalikes; an administrator may still assign them
# (docs/adr/0039). Comma-separated. Default: IDs that suggest the installation's operator.
RESERVED_USER_IDS: list[str] = env.list(
    "RESERVED_USER_IDS",
    default=[
        "abuse", "admin", "administrator", "anonymous", "help", "hostmaster", "noreply", "null", "official", "operator",
        "postmaster", "root", "security", "staff", "superuser", "support", "sysadmin", "system", "undefined",
        "webmaster", "관리자", "운영자",
    ],
)  # fmt: skip
# Days for which a complete sign-up is kept; then `manage.py purge` deletes it. It must exceed the time within which a
# message about the sign-up can be redelivered, which is checked at start (authsvc.signups.retention). Default: 90.
SIGNUP_RETENTION = env.int("SIGNUP_RETENTION", default=90, least=1, most=DAYS_MAX)
# Days between an owner's request to close an account and its removal, in which the owner can change their mind; 0: at
# once. Default: 7.
ACCOUNT_CLOSING_DAYS = env.int("ACCOUNT_CLOSING_DAYS", default=7, most=DAYS_MAX)
# Port and address of a consumer's or relay's health endpoints and /metrics; port 0 disables them. The web process
# serves its own. Defaults: 0 and 127.0.0.1.
HEALTH_PORT = env.int("HEALTH_PORT", default=0, most=PORT_MAX)
HEALTH_HOST = checks.read_address("HEALTH_HOST", env.str("HEALTH_HOST", default="127.0.0.1"))
# The role of this web process on the instances page: web, or auth for an auth instance behind the gateway. Default:
# web.
WEB_ROLE = env.choice("WEB_ROLE", ("web", "auth"), default="web")
# The version that the instances page shows for this process, for example a commit. Default: the release's version.
VERSION = env.str("VERSION", default=__version__)

# --- Passwords -------------------------------------------------------------------------------------------------

# argon2id's memory (KiB) and passes. Defaults: OWASP's parameters of 19 MiB and 2 passes, with 1 lane. Only a benchmark
# has a reason to change them.
ARGON2_MEMORY_KIB = env.int("ARGON2_MEMORY_KIB", default=19 * 1024, least=8)
ARGON2_TIME_COST = env.int("ARGON2_TIME_COST", default=2, least=1)
# Passwords that may queue for hashing; further sign-ups get 503 with Retry-After. Default: 400 (about 5 s of work).
HASH_QUEUE_LIMIT = env.int("HASH_QUEUE_LIMIT", default=400)
PASSWORD_HASHERS = ["authsvc.accounts.passwords.Argon2idHasher"]
# A single policy applies wherever a password is set (docs/adr/0045).
AUTH_PASSWORD_VALIDATORS = [{"NAME": "authsvc.accounts.passwords.PasswordPolicy"}]
# Seconds for which a password-reset link is valid.
PASSWORD_RESET_TIMEOUT = 3600
AUTH_USER_MODEL = "authsvc.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "account"
LOGOUT_REDIRECT_URL = "login"

# optional: any user may turn two-factor authentication on. required: staff must do so before they can use the
# administration or create administrators through the API. Default: optional.
ADMIN_TWO_FACTOR = env.choice("ADMIN_TWO_FACTOR", ("optional", "required"), default="optional")
# The name under which authenticator apps list this installation.
OTP_TOTP_ISSUER = "Signup Sync"

# --- Django ----------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    # Only `runserver` uses it.
    *(["daphne"] if DEBUG else []),
    "signup_sync",
    "signup_sync.front",
    "authsvc",
    *PACKAGES.values(),
    "scimsvc",
    "eventbus",
    "eventsearch",
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
# All of these are async-capable; a sync-only middleware would hold a thread for every request.
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
    "signup_sync.middleware.page_middleware.RemovedAccounts",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "signup_sync.middleware.page_middleware.ThreadRelease",
]
ROOT_URLCONF = "signup_sync.urls"
ASGI_APPLICATION = "signup_sync.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [RESOURCES / "templates"],
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
# Languages whose catalogue is complete (tests/unit/test_translations.py). The browser's preference or the switch on the
# page selects one.
LANGUAGES = [("en", "English"), ("ko", "한국어")]
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_SAMESITE = "Lax"
LOCALE_PATHS = [RESOURCES / "locale"]
TIME_ZONE = checks.read_time_zone(env.str("TIME_ZONE", default="UTC"))
STATIC_URL = "/static/"
STATICFILES_DIRS = [RESOURCES / "static"]
# Seconds for which a login is valid. Default: 1209600 (14 days).
SESSION_COOKIE_AGE = env.int("SESSION_COOKIE_AGE", default=14 * 24 * 3600, least=1)
# Seconds for which a login gives access to the administration, counted from the login and from the last page opened
# there; then staff must log in again. Defaults: 43200 (12 hours) and 3600.
ADMIN_SESSION_AGE = env.int("ADMIN_SESSION_AGE", default=12 * 3600, least=1)
ADMIN_SESSION_IDLE = env.int("ADMIN_SESSION_IDLE", default=3600, least=1)
SESSION_ENGINE = "authsvc.accounts.sessions"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = PRODUCTION
# Browsers accept a __Host- cookie only over HTTPS and from this exact host, so that neither a sibling host nor a
# network attacker can plant one. Without HTTPS, browsers would reject the cookie.
COOKIE_PREFIX = "__Host-" if PRODUCTION else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}csrftoken"
LANGUAGE_COOKIE_NAME = f"{COOKIE_PREFIX}django_language"
MESSAGE_STORAGE = "signup_sync.middleware.message_storage.Storage"
# None of our scripts reads these cookies.
CSRF_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "signup_sync.middleware.csrf_failure.csrf_failure"
# A page's address may contain a ticket, so the Referer header carries only the origin, to other sites and to our logs.
SECURE_REFERRER_POLICY = "strict-origin"
# A page shares no browsing context with another site's page that opened it or that it opened.
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"

# --- Mail ------------------------------------------------------------------------------------------------------

# The mail server, as a URL: smtp+tls://user:password@host:587. Default: none, and mails are written to the web
# process's output; with PRODUCTION=true, where password-reset links must not be logged, port 25 of this host.
vars().update(
    checks.read_mail_server(env.str("EMAIL_URL", default="smtp://localhost:25" if PRODUCTION else "consolemail://"))
)
# Whether a mail server is configured; in production, SIGNUP_CONFIRM=mail requires one.
HAS_MAIL_SERVER = bool(env.str("EMAIL_URL", default=""))
# Timeout in seconds for connecting to the mail server and for each of its replies. Default: 10.
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", default=10, least=1)
# Mails that may queue in one process, each for at most an hour while the mail server is unreachable; further mails are
# dropped and logged. Default: 1000.
MAIL_QUEUE_LIMIT = env.int("MAIL_QUEUE_LIMIT", default=1000)
# The sender's address. Default: signup@ and the host of PUBLIC_URL.
DEFAULT_FROM_EMAIL = checks.read_sender(env.str("DEFAULT_FROM_EMAIL", default=f"signup@{checks.host_of(PUBLIC_URL)}"))

# --- Logs ------------------------------------------------------------------------------------------------------

# The lowest level that is logged; security events (docs/security-events.md) are always logged. Default: INFO.
LOG_LEVEL = env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
# json (one object per line) or console (for people). Default: console if stderr is a terminal, otherwise json.
LOG_FORMAT = env.choice("LOG_FORMAT", ("json", "console"), default="console" if sys.stderr.isatty() else "json")
# All loggers propagate to the root handler, which formats the lines and redacts tickets (docs/adr/0020).
_PASSED_ON = {"handlers": [], "propagate": True}
LOGGING_CONFIG = "runtime.logs.configure"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "runtime.logs.formatter", "kind": LOG_FORMAT}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # By default, Django and the server give these loggers their own handlers.
        **dict.fromkeys(["django", "django.server", "uvicorn", "uvicorn.error", "uvicorn.access"], _PASSED_ON),
        # opensearch-py logs each failed request with a traceback; eventsearch reports it in one line.
        "opensearch": {"level": "CRITICAL"},
        # Security events are logged at INFO and must not be filtered by LOG_LEVEL.
        "security": {"level": "INFO"},
    },
}

if PRODUCTION:
    production.check(globals())
