"""What auth tells Prometheus. Every name of it stands here, and in docs/metrics.md (docs/adr/0019)."""

from typing import Final

from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram

from authsvc.lights import Decisions, Status

VERDICTS: Final = Counter(
    "signup_verdicts_total", "Lights decided; of auth's own: sign-ups taken and refused.", ["service", "status"]
)
COMPLETE_SECONDS: Final = Histogram(
    "signup_complete_seconds",
    "From the sign-up to the verdict that decided its last light; green: all of them are.",
    ["outcome"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
)
REPEATED: Final = Counter("signup_repeated_total", "Requests that joined a sign-up which was there already.")
LIMITED: Final = Counter(
    "signup_limited_total",
    "Sign-ups, logins, requests for a password and mails that a limit refused.",
    ["limit"],
)
UNLIMITED: Final = Counter("signup_unlimited_total", "What was let through uncounted because Redis was away.")
PROBLEMS: Final = Counter("signup_problems_total", "Requests to the API that ended in a problem document.", ["status"])
UNCONFIRMED: Final = Counter(
    "signup_unconfirmed_total", "Sign-ups that began to wait for confirmation, were confirmed, or expired.", ["state"]
)
MAILS: Final = Counter("signup_mails_total", "Mails, by what became of them.", ["outcome"])
MAILS_WAITING: Final = Gauge("signup_mails_waiting", "Mails that are being sent or wait for it.")
STREAMS: Final = Gauge("signup_streams", "Streams that this process holds.")
HASHES_WAITING: Final = Gauge("signup_hashes_waiting", "Passwords that are being hashed or wait for it.")
REDIS_AWAY: Final = Gauge("signup_redis_away", "1 while this process holds streams and has no subscription to Redis.")
RELAYED: Final = Counter("signup_relayed_total", "Events that the relay published again and Kafka acknowledged.")
INCOMPLETE: Final = Gauge(
    "signup_incomplete", "Sign-ups that wait for a verdict: asked lately, due to be asked again, or stalled.", ["state"]
)

# So that the first of each is seen as an increase, from 0.
_GREEN, _RED = COMPLETE_SECONDS.labels("green"), COMPLETE_SECONDS.labels("red")
for _service in settings.SIGNUP_SERVICES:
    for _status in (Status.SUCCESS, Status.FAIL):
        VERDICTS.labels(_service, _status.value)
for _limit in ("address", "user_id", "total", "login", "failed_login", "password", "confirm", "reset"):
    LIMITED.labels(_limit)
for _state in ("begun", "confirmed", "expired"):
    UNCONFIRMED.labels(_state)
for _outcome in ("sent", "retried", "dropped", "refused"):
    MAILS.labels(_outcome)


def count_verdicts(decisions: Decisions) -> None:
    """Counts the lights that were decided, and the sign-ups that became complete by it."""
    for (service, status), signup_ids in decisions.lights.items():
        VERDICTS.labels(service, status).inc(len(signup_ids))
    for state, last in decisions.complete:
        (_RED if state.failed else _GREEN).observe((last - state.started_at).total_seconds())
