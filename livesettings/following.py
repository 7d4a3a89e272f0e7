"""Apply changes of live settings within a second in the processes that use them (docs/adr/0050).

The overrides are one row in auth's database. Web, auth's instances and the relay poll it twice a second; no other role
uses a live setting. While the row can't be read, the last known values apply.
"""

import logging
import threading
from typing import Any, Final

import msgspec
from django.db import Error, close_old_connections
from psycopg_pool import PoolTimeout

from livesettings.models import Overrides
from livesettings.values import checked, take
from runtime.errors import in_one_line

logger = logging.getLogger(__name__)

# Polling interval in seconds. A change must apply within 1 s.
CHECK_INTERVAL: Final = 0.5
# Seconds that start() waits for the first poll, and close() for the last one.
FIRST_CHECK_WITHIN: Final = 2.0
LAST_CHECK_WITHIN: Final = 1.0

# A poll that read the row before a change must not overwrite one that read it afterwards.
_one_at_a_time: Final = threading.Lock()


class Follower:
    """Keep this process's live settings up to date, on a background thread."""

    def __init__(self) -> None:
        # The reason why the last poll could not apply the row. Each outage is logged once.
        self._problem = ""
        self._has_checked, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-settings", daemon=True)

    def start(self) -> None:
        """Start polling. On return the settings apply, if the row could be read."""
        self._thread.start()
        self._has_checked.wait(FIRST_CHECK_WITHIN)

    def close(self) -> None:
        """Stop polling."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(LAST_CHECK_WITHIN)

    def check(self) -> None:
        """Apply the row. If it can't be read or has invalid values, nothing changes."""
        try:
            with _one_at_a_time:
                take(checked(msgspec.convert(Overrides.read(), dict[str, Any])))
        except (Error, PoolTimeout) as error:
            self._note(f"the database is unavailable: {error}")
        except msgspec.ValidationError as error:
            self._note(f"their row is invalid: {error}")
        else:
            self._note("")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.check()
            except Exception:
                logger.exception("reading the live settings failed; it will be retried")
            finally:
                close_old_connections()
            self._has_checked.set()
            self._stop.wait(CHECK_INTERVAL)

    def _note(self, problem: str) -> None:
        if problem and not self._problem:
            logger.warning("the live settings keep their last values: %s", in_one_line(problem))
        elif self._problem and not problem:
            logger.info("the live settings are up to date again")
        self._problem = problem


def check_once() -> None:
    """Apply the row once: after a change in this process, and in short-lived commands."""
    Follower().check()
