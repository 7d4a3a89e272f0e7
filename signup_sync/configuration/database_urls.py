"""Converts a service's database URL to Django's settings.

Every option of a URL takes effect or is refused: a dropped option could be the one that requires TLS.
"""

from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured

POSTGRESQL: Final = frozenset({"postgres", "postgresql", "psql", "pgsql"})
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Parameters that the URL gives before its question mark, or that Django sets.
_SAID_ELSEWHERE: Final = frozenset({"host", "hostaddr", "port", "dbname", "user", "password", "client_encoding"})
# libpq's integer parameters; with any other value, every attempt to connect would fail.
_NUMBERS: Final = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)


def read_database_url(name: str, url: str) -> dict[str, Any]:
    """Return ENGINE, NAME, USER, PASSWORD, HOST, PORT and OPTIONS for a URL of the form
    `postgres://user:password@host:port/database?options` or `sqlite:///path?options`.

    Raises ImproperlyConfigured with the name of the setting, but without the URL, which contains a password.
    """
    try:
        parts = urlsplit(url)
        places = [urlsplit(f"//{place}") for place in parts.netloc.rpartition("@")[2].split(",")]
        host = ",".join(place.hostname or "" for place in places)
        port = ",".join(str(place.port or "") for place in places).strip(",")
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        # Suppress the cause: it quotes the text at the port's place, which is part of a password that contains "/".
        reason = (
            "it is not a URL, or an option has no value. In a password write %2F for /, %3F for ?, %23 for #, %40 for @"
        )
        raise _refusal(name, reason) from None
    if len({key for key, _ in options}) < len(options):
        raise _refusal(name, "an option is given twice")
    if parts.fragment:
        raise _refusal(name, "it has a #. Write that as %23")
    if parts.scheme == "sqlite":
        return _sqlite(name, parts, dict(options))
    if parts.scheme in POSTGRESQL:
        return _postgresql(name, parts, host, port, dict(options))
    raise _refusal(name, "it begins with neither postgres:// nor sqlite:///")


def _sqlite(name: str, parts: SplitResult, options: dict[str, str]) -> dict[str, Any]:
    path = unquote(parts.path[1:])
    if parts.netloc or not path or path == ":memory:":
        raise _refusal(name, "it has no file. An SQLite URL is sqlite:///relative/path or sqlite:////absolute/path")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": _sqlite_options(name, options)}


def _postgresql(name: str, parts: SplitResult, host: str, port: str, options: dict[str, str]) -> dict[str, Any]:
    database = unquote(parts.path[1:])
    if database.startswith("/"):  # postgres:////var/run/postgresql/database: a Unix socket's folder
        folder, _, database = database.rpartition("/")
        host = folder
    if not database:
        raise _refusal(name, "it names no database. A PostgreSQL URL is postgres://user:password@host:port/database")
    return {
        "ENGINE": "runtime.database.postgresql",
        "NAME": database,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(host),
        "PORT": port,
        "OPTIONS": _postgresql_options(name, options),
    }


def _postgresql_options(name: str, options: dict[str, str]) -> dict[str, Any]:
    """Return the options, which are passed to libpq unchanged. Refuse unknown ones."""
    known = {each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()} - _SAID_ELSEWHERE
    if unknown := options.keys() - known:
        allowed = (
            "Its options are libpq's connection parameters, such as sslmode; DATABASE_POOL_SIZE sets the pool's size"
        )
        raise _refusal(name, f"it has the option {_listed(unknown)}. {allowed}")
    if (mode := options.get("sslmode", SSL_MODES[0])) not in SSL_MODES:
        raise _refusal(name, f"its sslmode is {mode!r}, which is not one of {', '.join(SSL_MODES)}")
    for option in _NUMBERS & options.keys():
        if not (options[option].isascii() and options[option].isdigit()):
            raise _refusal(name, f"its {option} is {options[option]!r}, which is not a whole number")
    for option in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        file = options.get(option, "")
        if file and file != "system" and not Path(file).is_file():
            raise _refusal(name, f"its {option} {file!r} is not a file on this machine")
    return dict(options)


def _sqlite_options(name: str, options: dict[str, str]) -> dict[str, Any]:
    if unknown := options.keys() - {"timeout"}:
        raise _refusal(name, f"it has the option {_listed(unknown)}. SQLite's only option is timeout, in seconds")
    if "timeout" not in options:
        return {}
    if not (options["timeout"].isascii() and options["timeout"].isdigit()):
        raise _refusal(name, f"its timeout is {options['timeout']!r}, which is not a whole number of seconds")
    return {"timeout": int(options["timeout"])}


def _listed(options: set[str]) -> str:
    return ", ".join(sorted(options))


def _refusal(name: str, reason: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} can't be used: {reason.rstrip('.')}.")
