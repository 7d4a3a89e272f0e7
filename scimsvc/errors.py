"""The ways in which a SCIM server fails. The texts name no user, because they are stored and shown as last answers."""

from runtime.errors import PermanentError, TransientError


class ScimError(TransientError):
    """A request to a SCIM server failed.

    `status` is the HTTP status of its answer, or None if there was no answer. `is_unique` tells that a value of the
    request belongs to another resource. `retry_after`: seconds for which the server wants no further request.
    """

    def __init__(
        self, text: str, *, status: int | None = None, is_unique: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(text)
        self.status = status
        self.is_unique = is_unique
        self.retry_after = retry_after


class ScimUnavailableError(ScimError):
    """The server can't serve any request now: it is down, overloaded, or its URL or token is wrong."""


class UnfinishedError(ScimError):
    """A write failed or its outcome is unknown, although the server answers lookups."""


class LostClaimError(TransientError):
    """Another process works on this account now."""


class RefusedError(PermanentError):
    """The server rejects this user's data as invalid."""
