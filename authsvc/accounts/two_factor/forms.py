"""Forms that ask for a code. Each attempt counts as a login from its address (docs/adr/0033), and wrong codes delay
the next attempt (docs/adr/0046)."""

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from authsvc.accounts.forms import WRONG_PASSWORD, OwnerForm, own_password_field
from authsvc.accounts.two_factor.devices import TooSoonError, take_code
from authsvc.accounts.two_factor.notices import record, send_notice
from runtime.times import again_in

# Consecutive wrong codes after which the owner is notified by mail.
TOLD_AT: Final = 5
_CODE: Final = {"autocomplete": "one-time-code", "autocapitalize": "none", "spellcheck": "false"}


class CodeForm(OwnerForm):
    """Valid when the code is the device's, or a recovery code where the device is confirmed."""

    attempt = "login"
    event_of_failure = "two_factor_failed"
    too_many = _("There were too many login attempts from your network just now. {again}")

    code = forms.CharField(
        label=_("Code"),
        max_length=40,
        help_text=_("The 6-digit code from your authenticator app, or a recovery code."),
        widget=forms.TextInput(attrs={**_CODE, "autofocus": True}),
    )

    def __init__(self, *args: Any, device: Any, **kwargs: Any) -> None:
        self.device = device
        super().__init__(*args, **kwargs)

    def clean(self) -> Any:
        cleaned = super().clean()
        if not self.errors:
            self._check()
        return cleaned

    def _check(self) -> None:
        """Add an error or raise ValidationError if the input is wrong."""
        try:
            answer = take_code(self.device, self.cleaned_data["code"])
        except TooSoonError as error:
            self.retry_after = error.retry_after
            self.log(self.event_of_throttling, detail="wrong codes")
            words = str(_("Too many wrong codes. {again}")).format(again=again_in(error.retry_after))
            raise ValidationError(words, code="too_many") from error
        if answer.is_right:
            if answer.is_recovery_code:
                record("recovery_code_used", self.user, address=self.address)
            return
        self.log(self.event_of_failure, detail="wrong code")
        if answer.failures == TOLD_AT:
            send_notice("two_factor_failed", self.user)
        self.add_error("code", _("This code is wrong, expired or already used. Enter the current one."))


class ConfirmationForm(CodeForm):
    """Also ask for the password, before the second factor is changed."""

    password = own_password_field()
    field_order = ("password", "code")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["code"].widget.attrs.pop("autofocus")

    def _check(self) -> None:
        # Check the password first, so that a wrong one uses up no code.
        if not self.is_password_of(self.user, self.cleaned_data["password"]):
            self.add_error("password", WRONG_PASSWORD)
            return
        super()._check()


class SetupForm(ConfirmationForm):
    """The first code of a new secret; there are no recovery codes yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["code"].help_text = _("The 6-digit code that the app shows now.")
        self.fields["code"].widget.attrs["inputmode"] = "numeric"
