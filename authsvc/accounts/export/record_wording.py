"""The wording of exported records on the page. The download keeps the names and values of the contract."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from authsvc.accounts.export.collection import ExportedRecord, ExportedValue
from authsvc.models import EventTransaction, Role

# The label of each field of auth and of the product's participants. A field of any other service keeps its own name.
LABELS: Final[Mapping[str, Any]] = {
    "userId": _("user ID"),
    "userName": _("name"),
    "email": _("email address"),
    "role": _("role"),
    "active": _("active"),
    "isActive": _("active"),
    "isAccountActive": _("account active"),
    "staff": _("staff"),
    "joined": _("joined"),
    "lastLogin": _("last login"),
    "hasPassword": _("has a password"),
    "hasSecondFactor": _("two-factor authentication"),
    "closes": _("closes"),
    "signupId": _("added for sign-up"),
    "ownerSignupId": _("account created by sign-up"),
    "version": _("version"),
    "kind": _("kind"),
    "id": _("ID"),
    "begun": _("started"),
    "completed": _("complete"),
    "changed": _("changed"),
    "createdAt": _("created"),
    "server": _("server"),
    "scimId": _("SCIM ID"),
    "lastAnswer": _("last answer"),
    "answeredAt": _("answered"),
}
# The wording of the values of these fields.
_CHOICES: Final[Mapping[str, Mapping[str, Any]]] = {
    "role": dict(Role.choices),
    "kind": dict(EventTransaction._meta.get_field("kind").flatchoices),
}
# The times of auth and of the participants, which write them differently.
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def record_in_words(record: ExportedRecord) -> list[tuple[str, str]]:
    """Return the labels and values of a record in the reader's language and time zone."""
    return [
        (capfirst(str(LABELS[name])) if name in LABELS else name, _value_in_words(name, value))
        for name, value in record.items()
    ]


def _value_in_words(name: str, value: ExportedValue) -> str:
    if value is None or value == "":
        return gettext("none")
    if isinstance(value, bool):
        return gettext("Yes") if value else gettext("No")
    text = str(value)
    if name == "changed":
        return ", ".join(str(LABELS.get(each, each)) for each in text.split())
    return str(_CHOICES.get(name, {}).get(text) or _local_time(text) or text)


def _local_time(text: str) -> str | None:
    if _TIME.fullmatch(text):
        # Another service may send a time that does not exist, or one that is out of range in the reader's time zone.
        with suppress(ValueError, OverflowError):
            return date_format(localtime(datetime.fromisoformat(text)), "DATETIME_FORMAT")
    return None
