"""What an installation must be told, and must not be told, before it faces strangers (docs/adr/0047).

Each function takes what the environment says, and raises ImproperlyConfigured with one line that names the setting.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from signup_sync.environment import refusal

SECRET_LENGTH_MIN: Final = 50
SECRET_CHARACTERS_MIN: Final = 10
# Beginnings and parts of keys that others have published: Django's template, and our examples.
_PUBLISHED: Final = ("django-insecure-", "the-output-of-openssl", "changeme", "change-me", "change_me", "your-secret")
_HOST: Final = re.compile(r"\.?[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.IGNORECASE)
# What redis-py may be told in the URL. The product decides on the rest (livesettings.redis_clients): a socket_timeout
# would end quiet WebSockets.
_REDIS_OPTIONS: Final = re.compile(r"db|protocol|client_name|ssl_[a-z_]+")


def check_secret_key(key: str) -> None:
    """Whether a key may sign sessions and tickets. What is stored signed lasts as long as the key is unknown."""
    allowed = f"{SECRET_LENGTH_MIN} random characters or more, e.g. the output of: openssl rand -base64 48"
    if len(key) < SECRET_LENGTH_MIN:
        raise ImproperlyConfigured(f"SECRET_KEY has {len(key)} characters: give it {allowed}.")
    if len(set(key)) < SECRET_CHARACTERS_MIN or _is_repetition(key):
        raise ImproperlyConfigured(f"SECRET_KEY repeats itself: give it {allowed}.")
    if any(part in key.lower() for part in _PUBLISHED):
        raise ImproperlyConfigured(f"SECRET_KEY is an example that everybody knows: give it {allowed}.")


def _is_repetition(key: str) -> bool:
    """Whether it is a shorter text, over and over: it is found again at a place within itself, written twice."""
    return (key + key).find(key, 1) < len(key)


def check_debug(debug: bool) -> None:
    if debug:
        raise ImproperlyConfigured(
            "DEBUG is true together with PRODUCTION=true: its error pages show settings and passwords to anybody. "
            "Take one of the two away."
        )


def check_hosts(hosts: Sequence[str]) -> None:
    if not hosts or "*" in hosts:
        raise refusal("ALLOWED_HOSTS", ",".join(hosts), "the host names that people type, comma-separated, and no *")
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise refusal("ALLOWED_HOSTS", host, "host names alone, without scheme and port, comma-separated")


def read_public_url(url: str, *, production: bool) -> str:
    """`scheme://host[:port]`, without a slash at its end."""
    schemes = ("https",) if production else ("https", "http")
    allowed = f"{' or '.join(schemes)}://host or {schemes[0]}://host:port, and nothing after it"
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in schemes and _HOST.fullmatch(_bracketed(parts.hostname)) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise refusal("PUBLIC_URL", url, allowed)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def host_of(url: str) -> str:
    """The host of a URL that `read_public_url` has taken, as ALLOWED_HOSTS has it."""
    return _bracketed(urlsplit(url).hostname)


def _bracketed(host: str | None) -> str:
    return f"[{host}]" if host and ":" in host else host or ""


def read_proxies(text: str, *, production: bool) -> list[str]:
    """Addresses and networks, with spaces or commas between them."""
    proxies = text.replace(",", " ").split()
    for proxy in proxies:
        try:
            network = ipaddress.ip_network(proxy)
        except ValueError:
            raise refusal(
                "TRUSTED_PROXIES", proxy, "addresses or networks like 10.0.0.0/8 (no bit set behind it)"
            ) from None
        if production and network.prefixlen == 0:
            raise refusal(
                "TRUSTED_PROXIES", proxy, "the proxies alone: whoever is named may claim any address and HTTPS"
            )
    return proxies


def check_redis_url(url: str) -> None:
    """Whether redis-py can take it. Its own errors would come with each try to connect, and quote the URL."""
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


def require_signing_key() -> None:
    """For processes that sign something. The others, like a participant's, are not given the key."""
    try:
        _ = settings.SECRET_KEY
    except ImproperlyConfigured:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set: this process signs sessions, tickets and cookies with it. Give it "
            f"{SECRET_LENGTH_MIN} random characters or more, the same for every web process."
        ) from None
