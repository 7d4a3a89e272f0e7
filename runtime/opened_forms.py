"""Forms that change a user, and notice that the user was changed after they were opened (docs/adr/0062)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol, cast

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils.translation import gettext as _

from runtime.mail_addresses import shown_address


class VersionedUser(Protocol):
    """A user of any service: auth's record, or a participant's copy of it."""

    @property
    def version(self) -> int: ...


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


class OpenedForm(forms.ModelForm):  # type: ignore[type-arg]  # has none at run time
    """Refuse an admin's form that was opened before the newest change of the user, and keep what was typed.

    `compared` names the fields whose changes count."""

    opened = OpenedField()
    compared: ClassVar[Sequence[str]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Staff who may only view the user get no fields.
        if field := self.fields.get("opened"):
            field.initial = opened_now(self.instance, self.compared)

    def clean(self) -> Any:
        cleaned = super().clean()
        if self.instance.pk is None:
            return cleaned
        # The lock keeps the answer true until the transaction of this request ends.
        stored = type(self.instance).objects.select_for_update().filter(pk=self.instance.pk).first()
        if stored is None:
            raise ValidationError(_("This account has been removed."), code="removed")
        opened: Opened = self.cleaned_data["opened"]
        if opened != _opened(stored, self.compared):
            intro = _("This user was changed after you opened this page. Your input is kept: check it and save again.")
            conflicts = rebase(self, stored, self.compared)
            self.add_error(
                None, ValidationError([intro, *self.newer_changes(stored, since=opened.version)], code="outdated")
            )
            for name in conflicts:
                self.add_error(name, _("Now stored: %s") % _shown(stored, name))
        return cleaned

    def newer_changes(self, stored: Any, *, since: int) -> Iterator[str]:
        """Describe the known changes of the user since this version."""
        yield from ()


def opened_now(user: VersionedUser, names: Sequence[str]) -> str:
    """Return the value of an OpenedField for a form that shows these fields of the user."""
    return msgspec.json.encode(_opened(user, names)).decode()


def rebase(form: Any, stored: Any, names: Sequence[str]) -> list[str]:
    """Make an outdated form ready to be submitted again: fields that its user left alone take the stored values, the
    others keep what was typed. Return the fields that both have changed, differently.

    Otherwise, saving again would also revert what somebody else has changed in other fields.
    """
    opened: Opened = form.cleaned_data.get("opened") or Opened()
    # A request's user is a lazy object, whose type isn't that of the user.
    typed = stored.__class__(**{name: form.cleaned_data[name] for name in names if name in form.cleaned_data})
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


def _opened(user: VersionedUser, names: Sequence[str]) -> Opened:
    return Opened(user.version, {name: getattr(user, name) for name in names})


def _shown(user: Any, name: str) -> str:
    if name == "email":
        return shown_address(user.email)
    value = getattr(user, name)
    if isinstance(value, bool):
        return _("Yes") if value else _("No")
    return str(getattr(user, f"get_{name}_display", lambda: value)())
