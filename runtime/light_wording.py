"""A light in words, for auth's pages and the front's: they share the contract's statuses and reasons, and no code."""

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

STATUSES: Final[Mapping[str, Any]] = {
    "PENDING": _("Waiting for an answer"),
    "SUCCESS": _("Ready"),
    "FAIL": _("Already had this user"),
}
# A red light's words where its reason says more.
REASONS: Final[Mapping[str, Any]] = {
    "duplicate: userId": _("Already had this user ID"),
    "duplicate: email": _("Already had this email address"),
}
# A red light's words while the live settings hide why a service refused.
REFUSED: Final = _("Refused")


def light_in_words(status: str, reason: str | None) -> Any:
    """A light's reason, or its status."""
    return REASONS.get(reason or "", STATUSES[status])
