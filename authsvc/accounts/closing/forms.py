"""The form that closes an account asks for the password, and for a code where there is a second factor."""

from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from authsvc.accounts.forms import OwnerForm, own_password_field


class PasswordForm(OwnerForm):
    """Valid when the password is the account's."""

    password = own_password_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].widget.attrs["autofocus"] = True

    def count(self) -> None:
        """Do nothing: the password is counted when it is checked."""

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if not self.is_password_of(self.user, password):
            raise ValidationError(_("This password is wrong."), code="wrong_password")
        return password
