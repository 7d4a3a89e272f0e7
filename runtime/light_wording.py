"""The wording of a light, on every page of auth and the front."""

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext

STATUSES: Final[Mapping[str, Any]] = {
    "PENDING": _("Waiting for an answer"),
    "SUCCESS": _("Ready"),
    "FAIL": _("Already had this user"),
}
# Shown in addition to the colour, so that lights are readable without colour vision.
SIGNS: Final[Mapping[str, str]] = {"PENDING": "◌", "SUCCESS": "✓", "FAIL": "✕"}
# Wording of a green light of a change and of a removal, by kind.
SUCCESSES: Final[Mapping[str, Any]] = {"change": _("Updated"), "removal": _("Deleted")}
# Wording of a red light whose reason is more specific than its status.
REASONS: Final[Mapping[str, Any]] = {
    "duplicate: userId": _("Already had this user ID"),
    "duplicate: email": _("Already had this email address"),
    "removed": _("The account was removed"),
}
# Wording of a red light while the live settings hide the reasons.
REASON_HIDDEN: Final = _("Refused")


def light_in_words(status: str, reason: str | None, *, shows_reasons: bool = True, kind: str = "signUp") -> str:
    """Return the wording of a light's reason or, without a known reason, of its status. `kind` is that of the event
    transaction."""
    if status == "FAIL" and not shows_reasons:
        return str(REASON_HIDDEN)
    if status == "SUCCESS" and kind in SUCCESSES:
        return str(SUCCESSES[kind])
    return str(REASONS.get(reason or "", STATUSES[status]))


def name_of(service: str) -> str:
    """Return a service's name, translated if the catalogue has it in the context "service": the same word may have
    another meaning, and another translation, elsewhere in the product or in Django."""
    return pgettext("service", service.capitalize())


def shown_light(
    service: str, status: str, reason: str | None, *, shows_reasons: bool, kind: str = "signUp"
) -> dict[str, str]:
    """Return a light as the template `_light.html` and the script `front/lights.js` draw it."""
    word = light_in_words(status, reason, shows_reasons=shows_reasons, kind=kind)
    return {"service": service, "name": name_of(service), "status": str(status), "word": word}
