"""The form with which owners change the name and the email address of their account."""

from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from authsvc import identity
from authsvc.accounts.forms import WRONG_PASSWORD, OwnerForm, own_password_field
from authsvc.accounts.profile.address_links import must_be_confirmed
from authsvc.models import EventTransaction, User
from authsvc.signups.changes import change_account
from runtime.equality import normalize_email
from runtime.mail_addresses import shown_address
from runtime.opened_forms import OpenedField, opened_now, rebase

# The fields of the user that the form changes.
FIELDS: Final = ("user_name", "email")


class ProfileForm(OwnerForm):
    """The fields follow the rules of a sign-up, unless they are unchanged: the rules may have become stricter since.

    A request that sends mails counts as a password reset request, which sends mails too.
    """

    attempt = "password"
    too_many = _("There were too many requests from your network just now. {again}")

    opened = OpenedField()
    user_name = forms.CharField(
        label=_("Name"),
        error_messages={"required": _("Enter a name.")},
        max_length=identity.USER_NAME_MAX,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    email = forms.CharField(
        label=_("Email address"),
        error_messages={"required": _("Enter an email address.")},
        max_length=identity.EMAIL_MAX,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    password = own_password_field(required=False, help_text=_("Only needed to change the email address."))

    @staticmethod
    def values_of(user: User) -> dict[str, str]:
        """Return the initial values."""
        return {"opened": opened_now(user, FIELDS), "user_name": user.user_name, "email": shown_address(user.email)}

    @property
    def has_new_address(self) -> bool:
        return bool(self.cleaned_data.get("email", self.user.email) != self.user.email)

    @property
    def address_to_confirm(self) -> str | None:
        """The new address, if it is used only after its confirmation."""
        return self.cleaned_data["email"] if self.has_new_address and must_be_confirmed() else None

    def clean_user_name(self) -> str:
        name: str = self.cleaned_data["user_name"]
        if name != self.user.user_name:
            identity.validate_user_name(name)
        return name

    def clean_email(self) -> str:
        email = normalize_email(self.cleaned_data["email"])
        if email != self.user.email:
            identity.validate_address(email)
        return email

    def clean(self) -> Any:
        if self.cleaned_data["opened"].version != self.user.version:
            raise self.outdated(self.user)
        cleaned = super().clean()
        if self.has_new_address and not self.errors:
            if not (password := self.cleaned_data["password"]):
                self.add_error("password", _("Enter your password to change the email address."))
            elif not self.is_password_of(self.user, password):
                self.add_error("password", WRONG_PASSWORD)
        return cleaned

    def count(self) -> None:
        if not self.errors and self.address_to_confirm:
            super().count()

    def outdated(self, user: User) -> ValidationError:
        """Return the error that the account was changed since the page was opened, and make the form ready to be
        submitted again."""
        rebase(self, user, FIELDS)
        words = _(
            "Your account was changed after you opened this page, in another window or by an administrator. "
            "It now has the name “%(name)s” and the address %(email)s. What you entered is still here: check it, "
            "and save it again if you want to replace them."
        )
        return ValidationError(
            words, params={"name": user.user_name, "email": shown_address(user.email)}, code="outdated"
        )

    def save(self) -> tuple[User, EventTransaction | None]:
        """Save the name, and the address if it needs no confirmation. Return the user and the change, if there is one.
        Raise the errors of change_account()."""
        user = User.objects.filter(pk=self.user.pk).first() or self.user
        user.user_name = self.cleaned_data["user_name"]
        if self.address_to_confirm is None:
            user.email = self.cleaned_data["email"]
        return user, change_account(user, expected_version=self.user.version)
