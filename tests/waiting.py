"""Waiting for a condition instead of for a time."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Seconds, a bound for the broken case: two cores may be busy with a dozen processes.
PATIENCE = float(os.environ.get("PATIENCE", "30"))

# Seconds between two looks: short beside what is waited for, long beside what a look costs.
PAUSE = 0.02


class BrokenError(Exception):
    """Something that must hold at every moment does not. Not an AssertionError, which eventually() would wait out."""


def must_hold(holds: object, what: str = "") -> None:
    """Fails the test at once, also within a condition that is waited for."""
    if not holds:
        raise BrokenError(what or "it does not hold")


def eventually(condition: Callable[[], T], timeout: float = PATIENCE, *, what: str = "") -> T:
    """What `condition` gives as soon as that is true; an AssertionError that says `what` after `timeout` seconds.

    An AssertionError of the condition itself counts as "not yet"; the last one is shown. What must hold all the while
    is for must_hold().
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
        time.sleep(PAUSE)


async def eventually_async(condition: Callable[[], Awaitable[T]], timeout: float = PATIENCE, *, what: str = "") -> T:  # noqa: ASYNC109 - the same shape as eventually
    """`eventually` for a condition that is awaited."""
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
    """How many times as long as on a free core work takes here now; 1.0 where one is free."""
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < 0.2:
        pass
    return max(1.0, (time.monotonic() - began) / 0.2)


def _said(condition: Callable[[], object], timeout: float, what: str) -> str:
    return f"not within {timeout:g} s: {what or getattr(condition, '__qualname__', condition)}"
