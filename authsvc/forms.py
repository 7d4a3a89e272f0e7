"""The forms with which a person logs in and asks for a new password. Of each, so many are taken in a minute from one
address (docs/adr/0033)."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, ClassVar

from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm, PasswordResetForm
from django.core.exceptions import ValidationError
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from authsvc.identity import USER_ID_BYTES_MAX, normalize_email
from authsvc.models import User
from authsvc.rate_limits import Attempt, TooManyError, attempt_limits


class LimitedForm(BaseForm):
    """Refuses before anything dear is done: before a password is hashed, or a mail is sent."""

    attempt: ClassVar[Attempt]
    too_many: ClassVar[Any]
    request: HttpRequest | None
    # Seconds until another is taken, where this one is refused.
    retry_after: int | None = None

    def clean(self) -> Any:
        address = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        try:
            attempt_limits().count(self.attempt, address=address)
        except TooManyError as reached:
            self.retry_after = n = reached.retry_after
            again = ngettext("Try again in %(n)d second.", "Try again in %(n)d seconds.", n) % {"n": n}
            raise ValidationError(self.too_many.format(again=again), code="too_many") from reached
        return super().clean()


class LoginForm(LimitedForm, AuthenticationForm):
    attempt = "login"
    too_many = _("Too many tries to log in came from your network just now. {again}")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Django's limit is that of a kept user ID, and the browser cuts what is longer: a Hangul syllable may be typed
        # as three letters. What is longer than this Django does not normalise.
        username: Any = self.fields["username"]
        username.max_length = USER_ID_BYTES_MAX
        username.widget.attrs["maxlength"] = USER_ID_BYTES_MAX


class AdminLoginForm(LoginForm, AdminAuthenticationForm):
    """That of the administration: counted together with the other one."""


class OwnPasswordResetForm(LimitedForm, PasswordResetForm):
    """Django's, which looks for the address in a way that no index serves."""

    attempt = "password"
    too_many = _("Too many new passwords were asked for from your network just now. {again}")

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)

    def get_users(self, email: str) -> Iterator[User]:
        for user in User.objects.filter(email=normalize_email(email), is_active=True):
            if user.has_usable_password():
                yield user


def told_when(response: HttpResponseBase) -> HttpResponseBase:
    """The page with its form; 429 with Retry-After where that was one too many."""
    form = (getattr(response, "context_data", None) or {}).get("form")
    if isinstance(form, LimitedForm) and form.retry_after is not None:
        response.status_code = HTTPStatus.TOO_MANY_REQUESTS
        response.headers["Retry-After"] = str(form.retry_after)
    return response
