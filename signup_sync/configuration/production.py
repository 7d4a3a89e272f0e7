"""What an installation that faces strangers refuses to start with (docs/adr/0047): the settings that would weaken it.

Each of CHECKS gets all settings and returns one line for the first weakness that it finds: the name of the setting in
the environment, the problem, and what to do. It returns "" where there is none.
"""

import ipaddress
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

Settings = Mapping[str, Any]

SECRET_LENGTH_MIN: Final = 50
# Least number of pieces that a key consists of where a run that is known, or that stood before, is one piece.
SECRET_PIECES_MIN: Final = 32
# What people type for want of a random key.
_SEQUENCES: Final = (
    b"abcdefghijklmnopqrstuvwxyz", b"0123456789", b"qwertyuiop", b"asdfghjkl", b"zxcvbnm", b"azertyuiop", b"qsdfghjklm",
    b"wxcvbn", b"qwertz", b"!@#$%^&*()_+", b"1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)  # fmt: skip
# In both directions, and twice, because after its end a sequence may begin again.
_KNOWN: Final = b" ".join(each * 2 for sequence in _SEQUENCES for each in (sequence, sequence[::-1]))
# Beginnings and parts of keys that others have published: Django's template, and our examples.
_PUBLISHED: Final = ("django-insecure-", "the-output-of-openssl", "changeme", "change-me", "change_me", "your-secret")
# argon2id: KiB of memory, and passes that are enough with them (OWASP's Password Storage Cheat Sheet).
_ARGON2_MIN: Final = ((47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5))
HSTS_SECONDS_MIN: Final = 300
# The part of all addresses of a family that proxies may have: fc00::/7 and 10.0.0.0/8 are legitimate.
_PROXIES_SHARE: Final = 64
_IPV4: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_IPV6: Final = ipaddress.IPv6Network("::/0")
# Least and most of what limits strangers. Beyond these a setting is no limit any more.
_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "CONNECTION_IDLE_TIMEOUT": (1, 3_600),
    **dict.fromkeys(("REQUEST_HEAD_TIMEOUT", "REQUEST_BODY_TIMEOUT", "RESPONSE_STALL_TIMEOUT"), (0, 600)),
    **dict.fromkeys(("HELD_PER_SIGNUP", "HELD_PER_ADDRESS"), (1, 100_000)),
    **dict.fromkeys(("RATE_LIMIT_LOGIN", "RATE_LIMIT_PASSWORD"), (1, 10_000)),
    **dict.fromkeys(("RATE_LIMIT_FAILED_LOGIN", "RATE_LIMIT_CONFIRM"), (1, 100)),
    "HASH_QUEUE_LIMIT": (1, 100_000),
    "MAIL_QUEUE_LIMIT": (1, 1_000_000),
    "SESSION_COOKIE_AGE": (1, 400 * 24 * 3600),
    **dict.fromkeys(("ADMIN_SESSION_AGE", "ADMIN_SESSION_IDLE"), (1, 30 * 24 * 3600)),
}
# Ends of names that only a network of one's own resolves (RFC 6761, 6762, 9476; Kubernetes).
_INSIDE: Final = (".internal", ".local", ".localhost", ".invalid", ".test", ".lan", ".home.arpa", ".svc")
# Second labels under which a country's registry sells names: .co.uk is as public as .com.
_SOLD_BELOW: Final = frozenset("ac co com edu gob go gov gouv gv id mil ne net nom or org re sch".split())  # noqa: SIM905
# librdkafka's settings by which a client believes anybody, and the values that say so.
_KAFKA_UNSAFE: Final[Mapping[str, frozenset[str]]] = {
    "enable.ssl.certificate.verification": frozenset({"false", "f", "0"}),
    "ssl.endpoint.identification.algorithm": frozenset({"none", ""}),
    "enable.sasl.oauthbearer.unsecure.jwt": frozenset({"true", "t", "1"}),
}
# The same for redis-py, by its own words for false.
_REDIS_UNSAFE: Final = frozenset(
    [("ssl_cert_reqs", word) for word in ("none", "optional")]
    + [("ssl_check_hostname", word) for word in ("0", "f", "false", "n", "no")]
)
_KAFKA_PLACES: Final = ("bootstrap.servers", "metadata.broker.list")


def check(settings: Settings) -> None:
    """Raises ImproperlyConfigured for the first weakness."""
    for find in CHECKS:
        if weakness := find(settings):
            raise ImproperlyConfigured(weakness)


def require_signing_key() -> None:
    """For processes that sign something. The others, like a participant's, are not given the key."""
    try:
        _ = django_settings.SECRET_KEY
    except ImproperlyConfigured:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set: this process signs sessions, tickets and cookies with it. Give it "
            f"{SECRET_LENGTH_MIN} random characters or more, the same for every web process."
        ) from None


def _debug(settings: Settings) -> str:
    if not settings["DEBUG"]:
        return ""
    return (
        "DEBUG is true together with PRODUCTION=true: its error pages show settings and passwords to anybody. "
        "Take one of the two away."
    )


def _secret_key(settings: Settings) -> str:
    return weakness_of_key(settings["SECRET_KEY"]) if settings["SECRET_KEY"] else ""


def weakness_of_key(key: str) -> str:
    """Why a key may not sign sessions and tickets. What is stored signed lasts as long as the key is unknown."""
    allowed = f"{SECRET_LENGTH_MIN} random characters or more, e.g. the output of: openssl rand -base64 48"
    if len(key) < SECRET_LENGTH_MIN:
        return f"SECRET_KEY has {len(key)} characters: give it {allowed}."
    if any(part in key.lower() for part in _PUBLISHED):
        return f"SECRET_KEY is an example that everybody knows: give it {allowed}."
    begin = key[:1_000]  # finding the pieces takes quadratic time
    if min(_pieces(begin.lower().encode(), _KNOWN), _pieces(_steps(begin.encode()))) < SECRET_PIECES_MIN:
        return f"SECRET_KEY repeats itself, counts up, or is a row of the keyboard: give it {allowed}."
    return ""


def _pieces(text: bytes, known: bytes = b"") -> int:
    """The number of pieces that the text consists of, where each run of three or more bytes that is in `known`, or that
    has begun earlier in the text, is one piece."""
    at = count = 0
    while at < len(text):
        size = 1
        for end in range(at + 3, len(text) + 1):
            if text[at:end] not in known and text.find(text[at:end], 0, end - 1) < 0:
                break
            size = end - at
        at += size
        count += 1
    return count


def _steps(text: bytes) -> bytes:
    """The distances between neighbours. Those of aabbcc, acegik and a1b2c3 repeat themselves."""
    return bytes((after - before) % 256 for before, after in pairwise(text))


def _argon2(settings: Settings) -> str:
    memory, passes = settings["ARGON2_MEMORY_KIB"], settings["ARGON2_TIME_COST"]
    if any(memory >= memory_min and passes >= passes_min for memory_min, passes_min in _ARGON2_MIN):
        return ""
    return (
        f"ARGON2_MEMORY_KIB and ARGON2_TIME_COST are {memory} and {passes}, and stolen hashes would be cheap to guess: "
        "leave both out, which makes them 19456 and 2."
    )


def _limits(settings: Settings) -> str:
    for name, (least, most) in _LIMITS.items():
        if not least <= settings[name] <= most:
            return f"{name} is {settings[name]}, which limits nothing: give it a number from {least} to {most}."
    return ""


# --- Names and addresses ---------------------------------------------------------------------------------------


def _allowed_hosts(settings: Settings) -> str:
    for host in settings["ALLOWED_HOSTS"]:
        if host == "*" or (host.startswith(".") and _is_public_suffix(host[1:])):
            return (
                f"ALLOWED_HOSTS has {host!r}, which lets strangers choose the host: give it the host names that people "
                "type, comma-separated, or .example.org for the names below one of your own."
            )
    return ""


def _trusted_origins(settings: Settings) -> str:
    for origin in settings["CSRF_TRUSTED_ORIGINS"]:
        parts = urlsplit(origin)
        host = parts.hostname or ""
        if parts.scheme != "https":
            return (
                f"CSRF_TRUSTED_ORIGINS has {origin!r}, whose pages anybody on the way can write: give it origins that "
                "begin with https://."
            )
        if "*" in host and _is_public_suffix(host.removeprefix("*").removeprefix(".")):
            return f"CSRF_TRUSTED_ORIGINS has {origin!r}, which trusts strangers: name each origin."
    return ""


def _is_public_suffix(name: str) -> bool:
    """Whether anybody can buy a name below this one. A list of all such names would be out of date; this knows the
    top-level names and the usual second ones of countries."""
    labels = [label for label in name.lower().split(".") if label not in ("", "*")]
    return len(labels) < 2 or (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SOLD_BELOW)


def _trusted_proxies(settings: Settings) -> str:
    named = [ipaddress.ip_network(proxy) for proxy in settings["TRUSTED_PROXIES"]]
    networks = list(ipaddress.collapse_addresses(_as_ipv6(network) for network in named))
    for family in (_IPV4, _IPV6):
        parts = [family if family.subnet_of(network) else network for network in networks if network.overlaps(family)]
        if sum(part.num_addresses for part in parts) * _PROXIES_SHARE > family.num_addresses:
            return (
                f"TRUSTED_PROXIES are {', '.join(map(str, named))[:200]}, which is a large part of all addresses: give "
                "it the proxies alone, because whoever is named there may claim any address and HTTPS."
            )
    return ""


def _as_ipv6(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv6Network:
    """IPv4's addresses as a socket for both families shows them."""
    if isinstance(network, ipaddress.IPv6Network):
        return network
    return ipaddress.IPv6Network((int(_IPV4[0]) + int(network[0]), network.prefixlen + _IPV4.prefixlen))


def _hsts(settings: Settings) -> str:
    seconds = settings["SECURE_HSTS_SECONDS"]
    if seconds == 0 or seconds >= HSTS_SECONDS_MIN:
        return ""
    return (
        f"HSTS_SECONDS is {seconds}, after which browsers take plain HTTP again: give it {HSTS_SECONDS_MIN} to try, "
        "then 31536000, or 0 for none."
    )


# --- Other servers ---------------------------------------------------------------------------------------------


def _mail(settings: Settings) -> str:
    """Links to a new password are always offered: mail must be sent, and nobody on the way may read it."""
    allowed = "smtp+tls://user:password@host:587, or smtp+ssl:// with port 465"
    if not settings["EMAIL_BACKEND"].endswith(".smtp.EmailBackend"):
        return f"EMAIL_URL can't be used: with it no mail is sent, and people wait for links; give it {allowed}."
    has_tls = settings.get("EMAIL_USE_TLS") or settings.get("EMAIL_USE_SSL")
    if not has_tls and _is_outside(settings["EMAIL_HOST"]):
        return (
            f"EMAIL_URL can't be used: links to a new password would leave this network unencrypted; give it {allowed}."
        )
    return ""


def _databases(settings: Settings) -> str:
    for alias, database in settings["DATABASES"].items():
        mode = database["OPTIONS"].get("sslmode")
        if any(_is_outside(host) for host in database.get("HOST", "").split(",")) and mode != "verify-full":
            name = f"{'auth' if alias == 'default' else alias}_DATABASE_URL".upper()
            return (
                f"{name} can't be used: its host is outside this network, where another server could take its place; "
                "give it ?sslmode=verify-full&sslrootcert=/path, or sslrootcert=system."
            )
    return ""


def _redis(settings: Settings) -> str:
    url = urlsplit(settings["REDIS_URL"])
    options = {(name, value.lower()) for name, value in parse_qsl(url.query)}
    if not options.isdisjoint(_REDIS_UNSAFE):
        return (
            "REDIS_URL can't be used: by its options another server could take the place of Redis; leave ssl_cert_reqs "
            "and ssl_check_hostname out, and name a CA of your own by ssl_ca_certs=/path."
        )
    if url.scheme == "redis" and _is_outside(url.hostname or ""):
        return "REDIS_URL can't be used: its host is outside this network; give it rediss://, which is TLS."
    return ""


def _kafka(settings: Settings) -> str:
    config = {name.lower(): str(value).strip().lower() for name, value in settings["KAFKA_CLIENT_CONFIG"].items()}
    for name, unsafe in _KAFKA_UNSAFE.items():
        if config.get(name) in unsafe:
            return (
                f"KAFKA_CLIENT_CONFIG can't be used: by its {name} another server could take the place of Kafka; leave "
                "it out, and name a CA of your own by ssl.ca.location."
            )
    places = ",".join([settings["KAFKA_BOOTSTRAP_SERVERS"], *(config.get(name, "") for name in _KAFKA_PLACES)])
    is_plain = not config.get("security.protocol", "plaintext").endswith("ssl")
    if is_plain and any(
        _is_outside(place.strip().rpartition("://")[2].rpartition(":")[0]) for place in places.split(",")
    ):
        return (
            "KAFKA_CLIENT_CONFIG can't be used: a broker is outside this network, and there is no TLS; give it "
            '"security.protocol": "SASL_SSL" (or SSL).'
        )
    return ""


def _gateway(settings: Settings) -> str:
    url = urlsplit(settings["GATEWAY_URL"])
    if url.scheme == "https" or not _is_outside(url.hostname or ""):
        return ""
    return (
        f"GATEWAY_URL is {settings['GATEWAY_URL']!r}, and passwords would leave this network unencrypted: give it "
        "https://, or the gateway's address inside."
    )


def _is_outside(host: str) -> bool:
    """Whether what is sent there may pass through networks of others: an address of the internet, or a name with a dot.
    A name without one, as containers have, and a Unix socket are inside."""
    host = host.strip("[]").rstrip(".").lower()
    try:
        return not ipaddress.ip_address(host).is_private
    except ValueError:
        return "." in host and not host.startswith("/") and not host.endswith(_INSIDE)


CHECKS: Final[tuple[Callable[[Settings], str], ...]] = (
    _debug,
    _secret_key,
    _allowed_hosts,
    _trusted_origins,
    _trusted_proxies,
    _hsts,
    _mail,
    _databases,
    _redis,
    _kafka,
    _gateway,
    _argon2,
    _limits,
)
