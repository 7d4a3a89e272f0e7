"""Refuses unsafe settings with PRODUCTION=true (docs/adr/0047).

Each of CHECKS takes all settings and returns one line about the first weakness that it finds (the name of the
environment variable, the problem, and what to do), or "" if there is none.
"""

import ipaddress
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from runtime.argon2_costs import is_sufficient

Settings = Mapping[str, Any]

SECRET_LENGTH_MIN: Final = 50
# The minimum number of pieces in a key, where a run that is known or repeated counts as one piece (_pieces).
SECRET_PIECES_MIN: Final = 32
# Sequences that people type instead of a random key.
_SEQUENCES: Final = (
    b"abcdefghijklmnopqrstuvwxyz", b"0123456789", b"qwertyuiop", b"asdfghjkl", b"zxcvbnm", b"azertyuiop", b"qsdfghjklm",
    b"wxcvbn", b"qwertz", b"!@#$%^&*()_+", b"1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)  # fmt: skip
# Each sequence in both directions, and doubled, because it may start over after its end.
_KNOWN: Final = b" ".join(each * 2 for sequence in _SEQUENCES for each in (sequence, sequence[::-1]))
# Parts of published keys: Django's project template, common placeholders, and our examples.
_PUBLISHED: Final = ("django-insecure-", "the-output-of-openssl", "changeme", "change-me", "change_me", "your-secret")
HSTS_SECONDS_MIN: Final = 300
# Proxies may cover at most 1/64 of a family's addresses: fc00::/7 and 10.0.0.0/8 are legitimate.
_PROXIES_SHARE: Final = 64
_IPV4: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_IPV6: Final = ipaddress.IPv6Network("::/0")
# Bounds of the settings that limit clients. Outside these bounds, a setting no longer limits anything.
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
# Suffixes of names that only a private network resolves (RFC 6761, 6762, 9476; Kubernetes).
_INSIDE: Final = (".internal", ".local", ".localhost", ".invalid", ".test", ".lan", ".home.arpa", ".svc")
# Second-level labels under which country registries sell names: .co.uk is as public as .com.
_SOLD_BELOW: Final = frozenset("ac co com edu gob go gov gouv gv id mil ne net nom or org re sch".split())  # noqa: SIM905
# librdkafka's settings, with values that turn off the authentication of servers or tokens.
_KAFKA_UNSAFE: Final[Mapping[str, frozenset[str]]] = {
    "enable.ssl.certificate.verification": frozenset({"false", "f", "0"}),
    "ssl.endpoint.identification.algorithm": frozenset({"none", ""}),
    "enable.sasl.oauthbearer.unsecure.jwt": frozenset({"true", "t", "1"}),
}
# The same for redis-py, with all its spellings of false.
_REDIS_UNSAFE: Final = frozenset(
    [("ssl_cert_reqs", word) for word in ("none", "optional")]
    + [("ssl_check_hostname", word) for word in ("0", "f", "false", "n", "no")]
)
_KAFKA_PLACES: Final = ("bootstrap.servers", "metadata.broker.list")


def check(settings: Settings) -> None:
    """Raise ImproperlyConfigured for the first weakness found."""
    for find in CHECKS:
        if weakness := find(settings):
            raise ImproperlyConfigured(weakness)


def require_signing_key() -> None:
    """Raise ImproperlyConfigured if there is no SECRET_KEY. Only processes that sign call this; the others, such as a
    participant's, don't have the key."""
    try:
        _ = django_settings.SECRET_KEY
    except ImproperlyConfigured:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set: this process signs sessions, tickets and cookies with it. Give it at least "
            f"{SECRET_LENGTH_MIN} random characters, the same for every web process."
        ) from None


def _debug(settings: Settings) -> str:
    if not settings["DEBUG"]:
        return ""
    return (
        "DEBUG is true together with PRODUCTION=true: its error pages show settings and passwords to anybody. "
        "Remove one of the two."
    )


def _secret_key(settings: Settings) -> str:
    return weakness_of_key(settings["SECRET_KEY"]) if settings["SECRET_KEY"] else ""


def _secret_key_fallbacks(settings: Settings) -> str:
    found = (weakness_of_key(key, "A key in SECRET_KEY_FALLBACKS") for key in settings["SECRET_KEY_FALLBACKS"])
    return next(filter(None, found), "")


def weakness_of_key(key: str, name: str = "SECRET_KEY") -> str:
    """Return the reason why a key is too weak to sign sessions and tickets, or ""."""
    allowed = f"at least {SECRET_LENGTH_MIN} random characters, e.g. the output of: openssl rand -base64 48"
    if len(key) < SECRET_LENGTH_MIN:
        return f"{name} has {len(key)} characters: give it {allowed}."
    if any(part in key.lower() for part in _PUBLISHED):
        return f"{name} is a published example: give it {allowed}."
    begin = key[:1_000]  # finding the pieces takes quadratic time
    if min(_pieces(begin.lower().encode(), _KNOWN), _pieces(_steps(begin.encode()))) < SECRET_PIECES_MIN:
        return f"{name} consists of repetitions, sequences or keyboard rows: give it {allowed}."
    return ""


def _pieces(text: bytes, known: bytes = b"") -> int:
    """Count the pieces of the text, where each run of three or more bytes that occurs in `known`, or earlier in the
    text, is one piece."""
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
    """Return the differences between adjacent bytes. Those of aabbcc, acegik and a1b2c3 are repetitive."""
    return bytes((after - before) % 256 for before, after in pairwise(text))


def _scim_servers(settings: Settings) -> str:
    for name, address in settings["SCIM_SERVERS"].items():
        url = urlsplit(address)
        if url.scheme != "https" and _is_outside(url.hostname or ""):
            return (
                f"SCIM_SERVERS has {address!r} for {name}, so users and the token would leave this network "
                "unencrypted: give it https://."
            )
    return ""


def _argon2(settings: Settings) -> str:
    memory, passes = settings["ARGON2_MEMORY_KIB"], settings["ARGON2_TIME_COST"]
    if is_sufficient(memory, passes):
        return ""
    return (
        f"ARGON2_MEMORY_KIB and ARGON2_TIME_COST are {memory} and {passes}, so stolen hashes would be cheap to crack: "
        "remove both, for the defaults of 19456 and 2."
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
                f"CSRF_TRUSTED_ORIGINS has {origin!r}, whose pages an attacker on the network can change: give it "
                "origins that begin with https://."
            )
        if "*" in host and _is_public_suffix(host.removeprefix("*").removeprefix(".")):
            return f"CSRF_TRUSTED_ORIGINS has {origin!r}, which trusts strangers: name each origin."
    return ""


def _is_public_suffix(name: str) -> bool:
    """Whether anybody can register a name below this one. A full list would be out of date; this covers top-level
    domains and the usual second-level domains of countries."""
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
                "it only the proxies, because any host in it can claim any client address and HTTPS."
            )
    return ""


def _as_ipv6(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv6Network:
    """Return the network as IPv6, with IPv4 addresses mapped as on a dual-stack socket."""
    if isinstance(network, ipaddress.IPv6Network):
        return network
    return ipaddress.IPv6Network((int(_IPV4[0]) + int(network[0]), network.prefixlen + _IPV4.prefixlen))


def _hsts(settings: Settings) -> str:
    seconds = settings["SECURE_HSTS_SECONDS"]
    if seconds == 0 or seconds >= HSTS_SECONDS_MIN:
        return ""
    return (
        f"HSTS_SECONDS is {seconds}, after which browsers accept plain HTTP again: give it {HSTS_SECONDS_MIN} for a "
        "trial, later 31536000, or 0 to turn it off."
    )


# --- Other servers ---------------------------------------------------------------------------------------------


def _mail(settings: Settings) -> str:
    """Check the mail server. Password resets are always offered, so mail must be sent, and not in plain text outside
    this network."""
    allowed = "smtp+tls://user:password@host:587, or smtp+ssl:// with port 465"
    if not settings["EMAIL_BACKEND"].endswith(".smtp.EmailBackend"):
        return f"EMAIL_URL can't be used: it sends no mail, so users would never get their links; give it {allowed}."
    has_tls = settings.get("EMAIL_USE_TLS") or settings.get("EMAIL_USE_SSL")
    if not has_tls and _is_outside(settings["EMAIL_HOST"]):
        return f"EMAIL_URL can't be used: password-reset links would leave this network unencrypted; give it {allowed}."
    return ""


def _databases(settings: Settings) -> str:
    for alias, database in settings["DATABASES"].items():
        mode = database["OPTIONS"].get("sslmode")
        if any(_is_outside(host) for host in database.get("HOST", "").split(",")) and mode != "verify-full":
            name = f"{'auth' if alias == 'default' else alias}_DATABASE_URL".upper()
            return (
                f"{name} can't be used: its host is outside this network, where another server could impersonate it; "
                "give it ?sslmode=verify-full&sslrootcert=/path, or sslrootcert=system."
            )
    return ""


def _redis(settings: Settings) -> str:
    url = urlsplit(settings["REDIS_URL"])
    options = {(name, value.lower()) for name, value in parse_qsl(url.query)}
    if not options.isdisjoint(_REDIS_UNSAFE):
        return (
            "REDIS_URL can't be used: its options let another server impersonate Redis; remove ssl_cert_reqs and "
            "ssl_check_hostname, and name a private CA with ssl_ca_certs=/path."
        )
    if url.scheme == "redis" and _is_outside(url.hostname or ""):
        return "REDIS_URL can't be used: its host is outside this network; give it rediss://, which is TLS."
    return ""


def _kafka(settings: Settings) -> str:
    config = {name.lower(): str(value).strip().lower() for name, value in settings["KAFKA_CLIENT_CONFIG"].items()}
    for name, unsafe in _KAFKA_UNSAFE.items():
        if config.get(name) in unsafe:
            return (
                f"KAFKA_CLIENT_CONFIG can't be used: its {name} lets another server impersonate Kafka; remove it, and "
                "name a private CA with ssl.ca.location."
            )
    places = ",".join([settings["KAFKA_BOOTSTRAP_SERVERS"], *(config.get(name, "") for name in _KAFKA_PLACES)])
    is_plain = not config.get("security.protocol", "plaintext").endswith("ssl")
    if is_plain and any(_is_outside(_host_of_broker(place)) for place in places.split(",")):
        return (
            "KAFKA_CLIENT_CONFIG can't be used: a broker is outside this network, and there is no TLS; give it "
            '"security.protocol": "SASL_SSL" (or SSL).'
        )
    return ""


def _host_of_broker(place: str) -> str:
    """Return the host of a broker in librdkafka's form, in which the protocol and the port may be missing."""
    text = place.strip().rpartition("://")[2]
    host, _, port = text.rpartition(":")
    return host if port.isdigit() and (":" not in host or host.endswith("]")) else text


def _opensearch(settings: Settings) -> str:
    url = urlsplit(settings["OPENSEARCH_URL"])
    if url.scheme == "http" and _is_outside(url.hostname or ""):
        return "OPENSEARCH_URL can't be used: its host is outside this network; give it https://."
    return ""


def _gateway(settings: Settings) -> str:
    url = urlsplit(settings["GATEWAY_URL"])
    if url.scheme == "https" or not _is_outside(url.hostname or ""):
        return ""
    return (
        f"GATEWAY_URL is {settings['GATEWAY_URL']!r}, so passwords would leave this network unencrypted: give it "
        "https://, or the gateway's internal address."
    )


def _is_outside(host: str) -> bool:
    """Whether traffic to the host may leave this network: the host is a public address, or a name with a dot. Names
    without a dot, such as those of containers, and Unix sockets are inside."""
    host = host.strip("[]").rstrip(".").lower()
    try:
        return not ipaddress.ip_address(host).is_private
    except ValueError:
        return "." in host and not host.startswith("/") and not host.endswith(_INSIDE)


CHECKS: Final[tuple[Callable[[Settings], str], ...]] = (
    _debug,
    _secret_key,
    _secret_key_fallbacks,
    _allowed_hosts,
    _trusted_origins,
    _trusted_proxies,
    _hsts,
    _mail,
    _databases,
    _redis,
    _kafka,
    _opensearch,
    _gateway,
    _scim_servers,
    _argon2,
    _limits,
)
