"""A role to be run as a separate process:
`... -m tests.unit.runtime.processes.role steady|stuck|hanging|failing PORT [REDIS_URL]`."""

import logging
import os
import sys
import time

os.environ |= {
    "DJANGO_SETTINGS_MODULE": "signup_sync.settings",
    "HEALTH_PORT": sys.argv[2],
    "REDIS_URL": sys.argv[3] if len(sys.argv) > 3 else "redis://127.0.0.1:1/0",
}

from runtime.processes import health, roles
from runtime.processes.roles import running_role


def run(how: str) -> None:
    if how == "hanging":
        health.BEAT_WITHIN, roles.STUCK_CHECK_INTERVAL, roles.STUCK_CHECKS = 1.0, 0.2, 3
    with running_role(how) as role:
        role.ready()
        while not role.stop.is_set():
            role.beat()
            if how == "failing":
                raise LookupError("a bug")
            if how in ("stuck", "hanging"):
                time.sleep(60)
            role.stop.wait(30)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(sys.argv[1])
