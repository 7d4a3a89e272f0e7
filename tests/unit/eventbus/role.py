"""A role to be run as a process of its own: `python -m tests.unit.eventbus.role steady|stuck|failing`."""

import logging
import sys
import time

from django.conf import settings

from eventbus.roles import running_role


def run(how: str) -> None:
    with running_role(how) as role:
        role.ready()
        while not role.stop.is_set():
            role.beat()
            if how == "failing":
                raise LookupError("a bug")
            if how == "stuck":
                time.sleep(60)
            role.stop.wait(30)


if __name__ == "__main__":
    settings.configure(HEALTH_HOST="127.0.0.1", HEALTH_PORT=int(sys.argv[2]))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(sys.argv[1])
