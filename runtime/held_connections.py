"""Limits for connections that are held open: the page's WebSockets and the API's streams (docs/adr/0049).

Each process counts its own, because they consume that process's memory and file descriptors. A shared count in Redis
would have to admit everybody while Redis is unavailable.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from django.conf import settings

from runtime.addresses import network_of

# Seconds after which a refused client may retry.
RETRY_AFTER: Final = 10


class TooManyHeldError(Exception):
    """This process already holds the maximum number of connections for the sign-up or the address."""


class HeldConnections:
    """The open connections of one kind. Use it from one event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def one(self, *, signup: str | None = None, address: str | None = None) -> Iterator[None]:
        """Count one more connection for the duration of the block. Raises TooManyHeldError."""
        with ExitStack() as stack:
            if address:
                stack.enter_context(self._counted("address", network_of(address), settings.HELD_PER_ADDRESS))
            if signup:
                stack.enter_context(self._counted("signup", signup, settings.HELD_PER_SIGNUP))
            yield

    @contextmanager
    def _counted(self, what: str, key: str, at_most: int) -> Iterator[None]:
        if 0 < at_most <= self._counts[what, key]:
            raise TooManyHeldError(what)
        self._counts[what, key] += 1
        try:
            yield
        finally:
            self._counts[what, key] -= 1
            if not self._counts[what, key]:
                del self._counts[what, key]
