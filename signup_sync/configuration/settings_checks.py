"""Checks of the form of settings, for every installation. signup_sync.configuration.production has the checks for
production only.

Each function takes the value from the environment and raises ImproperlyConfigured with one line that names the setting.
"""

import ipaddress
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from signup_sync.configuration.environment import PORT_MAX, refusal
from signup_sync.participants import PARTICIPANTS

# A service's name becomes part of Kafka names, of ce_source (docs/asyncapi.yaml) and of metrics.
_SERVICE: Final = re.compile(r"[a-z][a-z0-9-]{0,49}")
# Names of services, consumer groups and roles that a new service can't have, apart from those of the participants.
TAKEN: Final = frozenset({"auth", "dead-letters", "inspection", "replies", "scim", "search"})
# RFC 6750.
_BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_INDEX: Final = re.compile(r"[a-z][a-z0-9_-]{0,99}")
_KAFKA_NAME: Final = re.compile(r"[A-Za-z0-9._-]{0,100}")
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
_ALLOWED_HOST: Final = re.compile(r"\*|\.?[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.IGNORECASE)
_PUBLIC_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.IGNORECASE)
# Options of redis-py that the URL may set. runtime.redis_clients sets the others: a socket_timeout, for example, would
# close quiet WebSockets.
_REDIS_OPTIONS: Final = re.compile(r"db|protocol|client_name|ssl_[a-z_]+")
_SYSTEM_ZONES: Final = Path("/usr/share/zoneinfo")


def read_services(names: Sequence[str]) -> list[str]:
    is_good = all(_SERVICE.fullmatch(name) for name in names) and len(set(names)) == len(names)
    if not is_good or "auth" not in names:
        allowed = "names of lower-case letters, digits and -, comma-separated, each once and auth among them"
        raise refusal("SIGNUP_SERVICES", ",".join(names), allowed)
    return list(names)


def read_scim_servers(pairs: Sequence[str]) -> dict[str, str]:
    """Read `name=URL` pairs: the services of SCIM servers, and their base URLs without a trailing slash."""
    servers: dict[str, str] = {}
    for pair in pairs:
        name, is_pair, url = (part.strip() for part in pair.partition("="))
        if not is_pair or not _SERVICE.fullmatch(name) or name in servers or not _is_base_url(url):
            allowed = "name=https://host/path pairs, comma-separated, each name once: lower-case letters, digits and -"
            raise refusal("SCIM_SERVERS", _without_password(pair), allowed)
        if name in {*TAKEN, *PARTICIPANTS} or name.endswith("-reconcile"):
            raise refusal("SCIM_SERVERS", pair, "other names: this one has a meaning here already")
        servers[name] = url.rstrip("/")
    return servers


def read_scim_tokens(pairs: Sequence[str], servers: Mapping[str, str]) -> dict[str, str]:
    """Read `name=token` pairs, which must cover exactly these servers. Without any, this process talks to none."""
    tokens: dict[str, str] = {}
    for pair in pairs:
        name, _, token = (part.strip() for part in pair.partition("="))
        if name in tokens or not _BEARER_TOKEN.fullmatch(token):
            allowed = "name=token pairs, comma-separated, each name once: a token has no spaces, quotes or commas"
            raise refusal("SCIM_TOKENS", pair, allowed)
        tokens[name] = token
    if tokens and tokens.keys() != servers.keys():
        missing = servers.keys() - tokens.keys()
        said = f"no token for {min(missing)}" if missing else "a token for a server that SCIM_SERVERS doesn't name"
        raise ImproperlyConfigured(f"SCIM_TOKENS can't be used: it has {said}.")
    return tokens


def read_opensearch_url(url: str) -> str:
    """Read OpenSearch's address, which may have a user, a password and the option ca_certs; empty if there is none."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    except ValueError:
        parts, options = urlsplit(""), []
    place = parts.netloc.rpartition("@")[2]
    is_good = _is_origin(f"{parts.scheme}://{place}") and not parts.path.strip("/") and not parts.fragment
    if not is_good or any(name != "ca_certs" for name, _ in options):
        allowed = "https://user:password@host:port, perhaps with ?ca_certs=/path; in a password / is %2F"
        raise refusal("OPENSEARCH_URL", url, allowed)
    return url


def read_index_name(name: str) -> str:
    if not _INDEX.fullmatch(name):
        raise refusal("OPENSEARCH_INDEX", name, "up to 100 lower-case letters, digits, - and _, a letter first")
    return name


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return _is_origin(f"{parts.scheme}://{parts.netloc}") and not re.search(r"[\s?#]", url)


def _without_password(pair: str) -> str:
    return re.sub(r"//[^/]*@", "//...@", pair)


def read_time_zone(name: str) -> str:
    """Read a time zone. Django looks it up in the system's folder if there is one; zoneinfo also looks in a package."""
    try:
        zoneinfo.ZoneInfo(name)
        is_known = not _SYSTEM_ZONES.exists() or (_SYSTEM_ZONES / name).is_file()
    except (LookupError, ValueError, OSError):
        is_known = False
    if not is_known:
        raise refusal("TIME_ZONE", name, "a name of the time zone database, like UTC or Asia/Seoul")
    return name


def read_brokers(text: str) -> str:
    """Read `host:port` entries, comma-separated; spaces are removed."""
    brokers = [part for each in text.split(",") if (part := each.strip())]
    if not all(_is_place(broker) for broker in brokers):
        raise refusal("KAFKA_BOOTSTRAP_SERVERS", text, "host:port of the brokers, comma-separated")
    return ",".join(brokers)


def read_client_config(config: dict[str, Any]) -> dict[str, Any]:
    if not all(isinstance(value, str | int | float) for value in config.values()):
        raise refusal("KAFKA_CLIENT_CONFIG", config, "a JSON object whose values are texts, numbers, true or false")
    return config


def read_kafka_prefix(prefix: str) -> str:
    if not _KAFKA_NAME.fullmatch(prefix):
        raise refusal("KAFKA_PREFIX", prefix, "up to 100 letters, digits and . _ -")
    return prefix


def read_address(name: str, host: str) -> str:
    """Read a host name, or an IP address without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # A malformed IPv4 address is not a host name.
        if not _HOST.fullmatch(host) or not re.search("[a-z]", host, re.IGNORECASE):
            raise refusal(name, host, "an IP address or a host name") from None
    return host


def check_allowed_hosts(hosts: Sequence[str]) -> None:
    if not hosts:
        raise refusal("ALLOWED_HOSTS", "", "the host names that people type, comma-separated")
    for host in hosts:
        if not _ALLOWED_HOST.fullmatch(host):
            raise refusal("ALLOWED_HOSTS", host, "host names alone, without scheme and port, comma-separated")


def read_http_url(name: str, url: str) -> str:
    """Read a server's address: scheme, host and optional port, returned without a trailing slash."""
    if not _is_origin(url.rstrip("/")):
        raise refusal(name, url, "http://host or http://host:port (or https), and nothing after it")
    return url.rstrip("/")


def read_origins(origins: Sequence[str]) -> list[str]:
    for origin in origins:
        if not _is_origin(origin.replace("//*.", "//", 1)):
            raise refusal("CSRF_TRUSTED_ORIGINS", origin, "https://host or https://host:port, comma-separated")
    return list(origins)


def read_mail_server(url: str) -> Mapping[str, Any]:
    """Return Django's settings for the mail server of the URL."""
    try:
        config: dict[str, Any] = environ.Env.email_url_config(url)
        is_good = (urlsplit(url).port or 1) <= PORT_MAX
    except (KeyError, ValueError, TypeError, environ.ImproperlyConfigured):
        is_good = False
    if not is_good or (urlsplit(url).scheme.startswith("smtp") and not urlsplit(url).hostname):
        allowed = "smtp://user:password@host:port, or smtp+tls:// or smtp+ssl://; in a password / is %2F"
        raise refusal("EMAIL_URL", url, allowed)
    return config


def read_sender(address: str) -> str:
    name, _, host = parseaddr(address)[1].rpartition("@")
    if not name or not host or "\n" in address or "\r" in address:
        raise refusal("DEFAULT_FROM_EMAIL", address, "an address, like signup@example.org or Us <us@example.org>")
    return address


def read_public_url(url: str, *, production: bool) -> str:
    """Read `scheme://host[:port]`, returned without a trailing slash."""
    schemes = ("https",) if production else ("https", "http")
    allowed = f"{' or '.join(schemes)}://host or {schemes[0]}://host:port, and nothing after it"
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in schemes and _PUBLIC_HOST.fullmatch(_bracketed(parts.hostname)) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise refusal("PUBLIC_URL", url, allowed)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def host_of(url: str) -> str:
    """Return the host of a valid URL in the form used in ALLOWED_HOSTS."""
    return _bracketed(urlsplit(url).hostname)


def _bracketed(host: str | None) -> str:
    return f"[{host}]" if host and ":" in host else host or ""


def read_proxies(text: str) -> list[str]:
    """Read addresses and networks, separated by spaces or commas."""
    proxies = text.replace(",", " ").split()
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise refusal(
                "TRUSTED_PROXIES", proxy, "addresses or networks like 10.0.0.0/8 (no bit set behind it)"
            ) from None
    return proxies


def check_redis_url(url: str) -> None:
    """Check that redis-py accepts the URL. Its own errors would occur at each attempt to connect, and quote the URL."""
    try:
        parts = urlsplit(url)
        is_good = url.lower().startswith(("redis://", "rediss://", "unix://")) and (parts.port or 1)
        options = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    except ValueError:
        is_good = False
    if not is_good:
        allowed = "redis://user:password@host:port/0, rediss:// for TLS, or unix:///path; in a password / is %2F"
        raise refusal("REDIS_URL", url, allowed)
    if unknown := sorted(option for option, _ in options if not _REDIS_OPTIONS.fullmatch(option)):
        raise ImproperlyConfigured(
            f"REDIS_URL can't be used: it has the option {', '.join(unknown)}. Its options are db and redis-py's that "
            "begin with ssl_, like ssl_ca_certs=/path."
        )


def _is_place(text: str) -> bool:
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= PORT_MAX
    return is_port and bool(_ALLOWED_HOST.fullmatch(host)) and host != "*"


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_good and not (parts.path or parts.query or parts.fragment or "@" in parts.netloc or " " in parts.netloc)
