"""Auth's Prometheus metrics, all declared here and listed in docs/metrics.md (docs/adr/0019)."""

from typing import Final

from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram

from authsvc.lights import DecidedLights, Kind, Status

VERDICTS: Final = Counter(
    "signup_verdicts_total",
    "Lights decided, of sign-ups, changes and removals.",
    ["service", "status", "kind"],
)
COMPLETE_SECONDS: Final = Histogram(
    "signup_complete_seconds",
    "Time from a sign-up, change or removal to the verdict that decided its last light; green if all its lights are.",
    ["outcome", "kind"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
)
REPEATED: Final = Counter("signup_repeated_total", "Repeated requests that joined an existing sign-up.")
LIMITED: Final = Counter(
    "signup_limited_total",
    "Sign-ups, logins, password reset requests and mails refused by a rate limit.",
    ["limit"],
)
UNLIMITED: Final = Counter("signup_unlimited_total", "Requests let through uncounted because Redis was unavailable.")
PROBLEMS: Final = Counter(
    "signup_problems_total", "API requests answered with a problem document, by HTTP status.", ["status"]
)
UNCONFIRMED: Final = Counter(
    "signup_unconfirmed_total", "Sign-ups that started waiting for confirmation, were confirmed, or expired.", ["state"]
)
MAILS: Final = Counter("signup_mails_total", "Mails, by outcome.", ["outcome"])
MAILS_WAITING: Final = Gauge("signup_mails_waiting", "Mails being sent or waiting to be sent.")
STREAMS: Final = Gauge("signup_streams", "Open streams of this process.")
HASHES_WAITING: Final = Gauge("signup_hashes_waiting", "Passwords being hashed or waiting to be hashed.")
REDIS_AWAY: Final = Gauge("signup_redis_away", "1 while this process has open streams but no subscription to Redis.")
RELAYED: Final = Counter("signup_relayed_total", "Events that the relay published again and Kafka acknowledged.")
INCOMPLETE: Final = Gauge(
    "signup_incomplete",
    "Incomplete sign-ups, changes and removals: waiting for answers, due to be published again, or stalled.",
    ["state"],
)

# Create the series with value 0, so that Prometheus sees the first event as an increase.
for _kind in Kind:
    for _outcome in ("green", "red"):
        COMPLETE_SECONDS.labels(_outcome, _kind.value)
for _service in settings.SIGNUP_SERVICES:
    for _status in (Status.SUCCESS, Status.FAIL):
        for _kind in Kind:
            VERDICTS.labels(_service, _status.value, _kind.value)
for _limit in (
    "address", "user_id", "total", "login", "failed_login", "failed_confirm", "password", "confirm", "reset"
):  # fmt: skip
    LIMITED.labels(_limit)
for _state in ("begun", "confirmed", "expired"):
    UNCONFIRMED.labels(_state)
for _outcome in ("sent", "retried", "dropped", "refused"):
    MAILS.labels(_outcome)


def count_verdicts(decisions: DecidedLights) -> None:
    """Count the decided lights and the transactions that they completed."""
    for (service, status, kind), ids in decisions.lights.items():
        VERDICTS.labels(service, status, kind.value).inc(len(ids))
    for state, last in decisions.complete:
        outcome = "red" if state.failed else "green"
        COMPLETE_SECONDS.labels(outcome, state.kind.value).observe((last - state.started_at).total_seconds())
