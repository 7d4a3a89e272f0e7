"""What every role tells Prometheus. Every name of it stands here, and in docs/metrics.md (docs/adr/0019)."""

from typing import Final

from prometheus_client import Gauge

HEARTBEAT_AGE: Final = Gauge("eventbus_heartbeat_age_seconds", "Since the role last went round its loop.")
