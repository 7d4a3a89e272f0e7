"""The forms of the front. They check only what can be checked without knowing the users; auth owns the rules, and its
messages are shown at the fields."""

import unicodedata
from http import HTTPStatus
from typing import Any, Final

from django import forms
from django.conf import settings
from django.utils.translation import get_language, gettext
from django.utils.translation import gettext_lazy as _

from runtime.equality import USER_ID_BYTES_MAX
from runtime.text_length import is_longer_than
from runtime.times import again_in
from signup_sync.front.gateway import (
    CLOSED,
    LIMIT_OF_ADDRESS,
    LIMIT_OF_PASSWORDS,
    LIMIT_OF_USER_ID,
    WRONG_PASSWORD,
    GatewayError,
    SubmittedUser,
)
from signup_sync.front.wording import MISMATCH, NOTICES, refusal_errors

# Limits of auth's contract (docs/openapi.yaml), in characters.
USER_ID_MIN: Final = 2
USER_ID_MAX: Final = 32
USER_NAME_MAX: Final = 100
EMAIL_MAX: Final = 254
PASSWORD_MAX: Final = 128
# The same limit in bytes as typed: the rule counts characters in NFC, which composes at most nine bytes into one.
PASSWORD_BYTES_MAX: Final = PASSWORD_MAX * 9
# Fields that are prefilled when a form is shown again without having been validated. Never a password.
TYPED: Final = ("userId", "userName", "email")


def _validate_length(password: str) -> None:
    if is_longer_than(PASSWORD_BYTES_MAX, password) or len(unicodedata.normalize("NFC", password)) > PASSWORD_MAX:
        raise forms.ValidationError(_("Use at most %(max)d characters."), params={"max": PASSWORD_MAX})


class SignUpForm(forms.Form):
    """The sign-up form. The fields have the names of the API. Passwords are never rendered."""

    userId = forms.CharField(  # noqa: N815 - a name on the wire
        label=_("User ID"),
        error_messages={"required": _("Enter a user ID.")},
        help_text=_(
            "2 to 32 characters: letters of one script (한글 too), digits, and . _ - after the first "
            "character. No spaces or emoji."
        ),
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}),
    )
    userName = forms.CharField(  # noqa: N815 - a name on the wire
        label=_("Name"),
        error_messages={"required": _("Enter a name.")},
        max_length=USER_NAME_MAX,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    email = forms.CharField(
        label=_("Email address"),
        error_messages={"required": _("Enter an email address.")},
        max_length=EMAIL_MAX,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    userPw = forms.CharField(  # noqa: N815 - a name on the wire
        label=_("Password"),
        error_messages={"required": _("Enter a password.")},
        help_text=_("At least 8 characters, not only digits, and not easy to guess."),
        validators=[_validate_length],
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    userPw2 = forms.CharField(  # noqa: N815 - a name on the wire
        label=_("Confirm password"),
        error_messages={"required": _("Enter the password again.")},
        validators=[_validate_length],
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            # The attribute would silently truncate pasted text; the server reports what is too long.
            field.widget.attrs.pop("maxlength", None)

    def clean_userId(self) -> str:  # noqa: N802 - Django finds it by the field's name
        user_id: str = self.cleaned_data["userId"]
        # The rule counts characters in NFKC: a Hangul syllable may be typed as three characters.
        too_long = is_longer_than(USER_ID_BYTES_MAX, user_id)
        if too_long or not USER_ID_MIN <= len(unicodedata.normalize("NFKC", user_id)) <= USER_ID_MAX:
            raise forms.ValidationError(
                _("Use %(min)d to %(max)d characters."), params={"min": USER_ID_MIN, "max": USER_ID_MAX}
            )
        return user_id

    def clean(self) -> dict[str, Any]:
        password, again = self.cleaned_data.get("userPw"), self.cleaned_data.get("userPw2")
        if password and again and password != again:
            self.add_error("userPw2", MISMATCH)
        return self.cleaned_data

    @property
    def new_user(self) -> SubmittedUser:
        """The user to sign up. The form must be valid."""
        return SubmittedUser(
            user_id=self.cleaned_data["userId"],
            user_name=self.cleaned_data["userName"],
            email=self.cleaned_data["email"],
            password=self.cleaned_data["userPw"],
            language=get_language() or settings.LANGUAGE_CODE,
        )

    def show_refusal(self, reason: str) -> None:
        """Show auth's reason for refusing the user at the field that it concerns."""
        for field, texts in refusal_errors(reason).items():
            self.add_error(field or None, texts)

    def show_problem(self, problem: GatewayError) -> None:
        """Show the gateway's errors at the fields that they name, or else above the form."""
        for error in problem.errors:
            name = error.pointer.removeprefix("/")
            self.add_error(name if name in self.fields else None, error.detail)
        if not problem.errors:
            self.add_error("userId" if problem.kind == LIMIT_OF_USER_ID else None, _words_of(problem))


class ConfirmForm(forms.Form):
    """The form of the confirmation page. The password proves that the same person signed up."""

    userPw = forms.CharField(  # noqa: N815 - a name on the wire
        label=_("Password"),
        error_messages={"required": _("Enter a password.")},
        help_text=_("The password that you chose when you signed up."),
        validators=[_validate_length],
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def show_problem(self, problem: GatewayError) -> bool:
        """Show a problem with the password at its field. Return False if the problem is about something else."""
        if problem.kind == WRONG_PASSWORD:
            self.add_error(
                "userPw",
                _(
                    "This is not the password that was chosen for this sign-up. If you received several of these "
                    "emails, try the link in another one. If you did not sign up, close this page."
                ),
            )
        elif problem.kind == LIMIT_OF_PASSWORDS:
            text = gettext("There were too many password attempts for this sign-up. {again}")
            self.add_error("userPw", text.format(again=_again(problem)))
        else:
            return False
        return True


_LIMITS: Final = {
    LIMIT_OF_ADDRESS: _(
        "There were too many sign-ups from your network just now. What you entered is still here. {again}"
    ),
    LIMIT_OF_USER_ID: _("There were too many sign-ups for this user ID just now. Choose another one. {again}"),
}


def _words_of(problem: GatewayError) -> str:
    if problem.status == HTTPStatus.CONFLICT:
        return str(
            _(
                "This form was sent too many times with different details. Copy what you need, then open the "
                "sign-up page again."
            )
        )
    if problem.kind == CLOSED:
        return str(NOTICES["closed"])
    if not problem.may_pass:
        return str(_("Your sign-up was not accepted, and we do not know why. Reload this page and try again."))
    text = _LIMITS.get(problem.kind, _("We cannot sign you up right now. What you entered is still here. {again}"))
    return str(text).format(again=_again(problem))


def _again(problem: GatewayError) -> str:
    return again_in(problem.retry_after) if problem.retry_after else gettext("Try again in a moment.")
