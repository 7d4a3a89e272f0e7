"""Prometheus metrics of every role. Every name is defined here and listed in docs/metrics.md (docs/adr/0019)."""

from typing import Final

from prometheus_client import Gauge

HEARTBEAT_AGE: Final = Gauge("eventbus_heartbeat_age_seconds", "Seconds since the role's last heartbeat.")
