"""Forms that change a user, and notice that the user was changed after they were opened (docs/adr/0062)."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from django import forms
from django.http import QueryDict

from authsvc.models import User
from runtime.mail_addresses import shown_address


class Opened(msgspec.Struct, frozen=True):
    """The user's version and values when the form was opened. A forged one affects only its sender's own form."""

    version: int = 0
    values: dict[str, str | bool] = {}


class OpenedField(forms.CharField):
    """A hidden field with what the form showed."""

    widget = forms.HiddenInput

    def __init__(self) -> None:
        super().__init__(required=False)

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return False: it is no field of the user."""
        return False

    def clean(self, value: Any) -> Opened:
        try:
            return msgspec.json.decode(value or "", type=Opened)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return Opened()


def opened_now(user: User, names: Sequence[str]) -> str:
    """Return the value of an OpenedField for a form that shows these fields of the user."""
    opened = Opened(user.version, {name: getattr(user, name) for name in names})
    return msgspec.json.encode(opened).decode()


def rebase(form: Any, stored: User, names: Sequence[str]) -> list[str]:
    """Make an outdated form ready to be submitted again: fields that its user left alone take the stored values, the
    others keep what was typed. Return the fields that both have changed, differently.

    Otherwise, saving again would also revert what somebody else has changed in other fields.
    """
    opened: Opened = form.cleaned_data.get("opened") or Opened()
    typed = User(**{name: form.cleaned_data[name] for name in names if name in form.cleaned_data})
    typed.normalize()
    data = cast(QueryDict, form.data).copy()
    data["opened"] = opened_now(stored, names)
    conflicts = []
    for name in names:
        value, shown = getattr(stored, name), opened.values.get(name)
        if name not in form.cleaned_data or value in (getattr(typed, name), shown):
            continue
        if getattr(typed, name) != shown:
            conflicts.append(name)
        elif value is False:
            data.pop(name, None)
        else:
            data[name] = "on" if value is True else shown_address(value) if name == "email" else value
    form.data = data
    return conflicts
