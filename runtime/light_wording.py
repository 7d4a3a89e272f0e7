"""The wording of a light, shared by auth's pages and the front's."""

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

STATUSES: Final[Mapping[str, Any]] = {
    "PENDING": _("Waiting for an answer"),
    "SUCCESS": _("Ready"),
    "FAIL": _("Already had this user"),
}
# Wording of a red light whose reason is more specific than its status.
REASONS: Final[Mapping[str, Any]] = {
    "duplicate: userId": _("Already had this user ID"),
    "duplicate: email": _("Already had this email address"),
}
# Wording of a red light while the live settings hide the reasons.
REFUSED: Final = _("Refused")


def light_in_words(status: str, reason: str | None) -> Any:
    """Return the wording of a light's reason or, without a known reason, of its status."""
    return REASONS.get(reason or "", STATUSES[status])
