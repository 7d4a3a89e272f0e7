"""The database of a service as a URL, and what Django makes of it.

The options of a URL take effect or are refused: one that was dropped could be the one that asks for TLS.
"""

from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured

POSTGRESQL: Final = frozenset({"postgres", "postgresql", "psql", "pgsql"})
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# What the URL says before its question mark, and what the connection pool is told by DATABASE_POOL_SIZE.
_SAID_ELSEWHERE: Final = frozenset({"host", "hostaddr", "port", "dbname", "user", "password", "client_encoding"})
# What libpq expects to be whole numbers; it would refuse anything else with every try to connect.
_NUMBERS: Final = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)


def read_database_url(name: str, url: str) -> dict[str, Any]:
    """ENGINE, NAME, USER, PASSWORD, HOST, PORT and OPTIONS of `postgres://user:password@host:port/database?options` or
    `sqlite:///path?options`.

    Raises ImproperlyConfigured, without the URL, which holds a password; `name` is the setting that has it.
    """
    try:
        parts = urlsplit(url)
        places = [urlsplit(f"//{place}") for place in parts.netloc.rpartition("@")[2].split(",")]
        host = ",".join(place.hostname or "" for place in places)
        port = ",".join(str(place.port or "") for place in places).strip(",")
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        # Its cause quotes what stands where the port should, which is a part of the password where that has a "/".
        reason = (
            "it is no URL, or an option has no value. In a password write %2F for /, %3F for ?, %23 for #, %40 for @"
        )
        raise _refusal(name, reason) from None
    if len({key for key, _ in options}) < len(options):
        raise _refusal(name, "an option stands there twice")
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
    """libpq's parameters, which the connection gets as they are."""
    known = {each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()} - _SAID_ELSEWHERE
    if unknown := options.keys() - known:
        allowed = (
            "Its options are connection parameters of libpq, like sslmode; connections are kept by DATABASE_POOL_SIZE"
        )
        raise _refusal(name, f"it has the option {_listed(unknown)}. {allowed}")
    if (mode := options.get("sslmode", SSL_MODES[0])) not in SSL_MODES:
        raise _refusal(name, f"its sslmode is {mode!r}, and not one of {', '.join(SSL_MODES)}")
    for option in _NUMBERS & options.keys():
        if not (options[option].isascii() and options[option].isdigit()):
            raise _refusal(name, f"its {option} is {options[option]!r}, and no whole number")
    for option in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        file = options.get(option, "")
        if file and file != "system" and not Path(file).is_file():
            raise _refusal(name, f"its {option} {file!r} is no file here")
    return dict(options)


def _sqlite_options(name: str, options: dict[str, str]) -> dict[str, Any]:
    if unknown := options.keys() - {"timeout"}:
        raise _refusal(name, f"it has the option {_listed(unknown)}. SQLite's one option is timeout, in seconds")
    if "timeout" not in options:
        return {}
    if not (options["timeout"].isascii() and options["timeout"].isdigit()):
        raise _refusal(name, f"its timeout is {options['timeout']!r}, and no whole number of seconds")
    return {"timeout": int(options["timeout"])}


def _listed(options: set[str]) -> str:
    return ", ".join(sorted(options))


def _refusal(name: str, reason: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} can't be used: {reason.rstrip('.')}.")
