"""Limits for connections that are held open: WebSockets of the page, streams of the API (docs/adr/0049).

They are counted in each process by itself. What they use up is that process's memory and files, and a count that needs
Redis would have to let everybody in while Redis is away.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from django.conf import settings

from runtime.addresses import network_of

# Seconds after which a client that was refused may try again.
RETRY_AFTER: Final = 10


class TooManyHeldError(Exception):
    """This process holds as many connections for the sign-up or the address as it may."""


class HeldConnections:
    """Those of one kind, for one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def one(self, *, signup: str | None = None, address: str | None = None) -> Iterator[None]:
        """Counts one more for as long as the block lasts. Raises TooManyHeldError."""
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
