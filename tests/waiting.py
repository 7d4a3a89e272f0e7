"""Wait for conditions instead of sleeping."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Timeout in seconds, generous because two cores may be busy with a dozen processes.
PATIENCE = float(os.environ.get("PATIENCE", "30"))

# Seconds between two checks: short compared with the wait, long compared with the cost of a check.
PAUSE = 0.02


class BrokenError(Exception):
    """Something that must hold at every moment does not. Not an AssertionError, which eventually() would wait out."""


def must_hold(holds: object, what: str = "") -> None:
    """Fail the test at once, even within a condition of eventually()."""
    if not holds:
        raise BrokenError(what or "it does not hold")


def eventually(condition: Callable[[], T], timeout: float = PATIENCE, *, what: str = "", pause: float = PAUSE) -> T:
    """Return the result of `condition` as soon as it is true. Raise AssertionError with `what` after `timeout` seconds.

    An AssertionError in the condition counts as "not yet"; the last one is shown. Use must_hold() for conditions that
    must hold at every moment. `pause` is for costly checks.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            if value := condition():
                return value
            failure = None
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(_said(condition, timeout, what)) from failure
        time.sleep(pause)


async def eventually_async(condition: Callable[[], Awaitable[T]], timeout: float = PATIENCE, *, what: str = "") -> T:  # noqa: ASYNC109 - the same signature as eventually
    """`eventually` for an async condition."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if value := await condition():
                return value
            failure = None
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(_said(condition, timeout, what)) from failure
        await asyncio.sleep(PAUSE)


def slowness() -> float:
    """Return the current slowdown compared with an idle core; 1.0 if a core is idle."""
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < 0.2:
        pass
    return max(1.0, (time.monotonic() - began) / 0.2)


def _said(condition: Callable[[], object], timeout: float, what: str) -> str:
    return f"not within {timeout:g} s: {what or getattr(condition, '__qualname__', condition)}"
