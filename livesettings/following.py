"""How the processes that use live settings learn of a change within a second (docs/adr/0050).

The overrides are one row in auth's database. Web, auth's instances and the relay read it twice a second; no other role
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

logger = logging.getLogger(__name__)

# Seconds between two looks. A change must arrive within 1 s.
LOOK: Final = 0.5
# Seconds that a start waits for the first look, and an end for the last one.
FIRST_LOOK: Final = 2.0
LAST_LOOK: Final = 1.0

# A look that read the row before a change must not overwrite one that read it afterwards.
_one_at_a_time: Final = threading.Lock()


class Follower:
    """Keeps the live settings of this process up to date, from a thread of its own."""

    def __init__(self) -> None:
        # What kept the last look from applying the row; the log has one line for each outage.
        self._problem = ""
        self._has_looked, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-settings", daemon=True)

    def start(self) -> None:
        """Starts following. On return the settings apply, if the row could be read."""
        self._thread.start()
        self._has_looked.wait(FIRST_LOOK)

    def close(self) -> None:
        """Stops following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(LAST_LOOK)

    def look(self) -> None:
        """Applies the row. A row that can't be read or has impossible values changes nothing."""
        try:
            with _one_at_a_time:
                take(checked(msgspec.convert(Overrides.read(), dict[str, Any])))
        except (Error, PoolTimeout) as error:
            self._note(f"the database is away: {error}")
        except msgspec.ValidationError as error:
            self._note(f"their row is wrong: {error}")
        else:
            self._note("")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:
                logger.exception("the live settings can't be followed; trying again")
            finally:
                close_old_connections()
            self._has_looked.set()
            self._stop.wait(LOOK)

    def _note(self, problem: str) -> None:
        if problem and not self._problem:
            logger.warning("the live settings stay as they are, %s", " ".join(problem.split()))
        elif self._problem and not problem:
            logger.info("the live settings are followed again")
        self._problem = problem


def look_once() -> None:
    """One look: after a change made here, and for a command that ends."""
    Follower().look()
