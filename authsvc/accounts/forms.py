"""Forms for logging in, changing a password and requesting a reset. Each is rate-limited per address and minute
(docs/adr/0033), and so are wrong passwords per account and address (0045)."""

from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from django import forms
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import ValidationError
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import FormView

from authsvc.accounts.passwords import is_too_long
from authsvc.identity import EMAIL_MAX
from authsvc.models import User
from authsvc.rate_limits import Attempt, TooManyError, attempt_limits
from runtime.equality import USER_ID_BYTES_MAX, user_id_key
from runtime.security_log import SecurityEvent, address_of, log_security_event
from runtime.text_length import is_longer_than
from runtime.times import again_in

WRONG_PASSWORD: Final = _("This password is wrong.")
WRONG_TOO_OFTEN: Final = _("There were too many wrong passwords for this account from your network. {again}")


class LimitedForm(BaseForm):
    """Check the rate limit before anything expensive: before a password is hashed or a mail is sent."""

    attempt: ClassVar[Attempt]
    too_many: ClassVar[Any]
    event_of_throttling: ClassVar[SecurityEvent] = "login_throttled"
    event_of_failure: ClassVar[SecurityEvent] = "login_failed"
    request: HttpRequest | None
    # Seconds until another attempt is accepted, when this one was refused.
    retry_after: int | None = None

    def clean(self) -> Any:
        try:
            self.count()
        except TooManyError as reached:
            raise self.refusal(reached) from reached
        return super().clean()

    def count(self) -> None:
        """Raises TooManyError."""
        attempt_limits().count(self.attempt, address=self.address)

    def is_password_of(self, user: User, password: str) -> bool:
        """Whether this is the user's password; counted and logged like a login. Raise ValidationError at the limit."""
        try:
            attempt_limits().count_login(user.user_id_key, address=self.address)
        except TooManyError as reached:
            raise self.refusal(reached) from reached
        if is_too_long(password) or not user.check_password(password):
            self.log(self.event_of_failure, detail="wrong password")
            return False
        attempt_limits().forget_logins(user.user_id_key, address=self.address)
        return True

    @property
    def address(self) -> str:
        return address_of(self.request) or ""

    @property
    def actor(self) -> str | None:
        """The user ID of the account concerned."""
        user = getattr(self, "user", None)
        return user.user_id if isinstance(user, User) else None

    def log(self, event: SecurityEvent, *, detail: str) -> None:
        log_security_event(event, actor=self.actor, address=self.address, detail=detail)

    def refusal(self, reached: TooManyError) -> ValidationError:
        """Log the refusal and return the form's error."""
        self.retry_after = reached.retry_after
        self.log(self.event_of_throttling, detail=reached.limit)
        words = WRONG_TOO_OFTEN if reached.limit == "failed_login" else self.too_many
        return ValidationError(words.format(again=again_in(reached.retry_after)), code="too_many")


class OwnerForm(LimitedForm, forms.Form):
    """A form for the owner of an account."""

    def __init__(self, *args: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
        self.request = request
        self.user = user
        super().__init__(*args, **kwargs)


def own_password_field(**options: Any) -> forms.CharField:
    """Return a field for the present password of the account's owner."""
    widget = forms.PasswordInput(attrs={"autocomplete": "current-password"})
    return forms.CharField(label=_("Your password"), max_length=512, strip=False, widget=widget, **options)


class PasswordForm(OwnerForm):
    """A form that asks the owner for the password."""

    password = own_password_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].widget.attrs["autofocus"] = True

    def count(self) -> None:
        """Do nothing: the password is counted when it is checked."""

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if not self.is_password_of(self.user, password):
            raise ValidationError(WRONG_PASSWORD, code="wrong_password")
        return password


class LoginForm(LimitedForm, AuthenticationForm):
    attempt = "login"
    too_many = _("There were too many login attempts from your network just now. {again}")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Django's limit is that of a stored user ID, and the browser truncates longer input, but a Hangul syllable may
        # be typed as three letters. Django does not normalise input above this limit.
        username: Any = self.fields["username"]
        username.max_length = USER_ID_BYTES_MAX
        username.widget.attrs["maxlength"] = USER_ID_BYTES_MAX

    def clean(self) -> Any:
        try:
            cleaned = super().clean()
        except ValidationError as refusal:
            if refusal.code != "too_many":
                self.log(self.event_of_failure, detail=self._failure)
            raise
        if self.user_cache is not None:
            attempt_limits().forget_logins(self.account, address=self.address)
        return cleaned

    def count(self) -> None:
        super().count()
        # Count unknown accounts too, or the response would reveal which accounts exist.
        attempt_limits().count_login(self.account, address=self.address)

    @property
    def _failure(self) -> str:
        if self.user_cache is not None:
            return "this account may not log in here"
        return "wrong password" if self.actor else "there is no such account"

    @property
    def account(self) -> str:
        """The key under which attempts are counted, or "" for a text that is too long for a user ID."""
        typed = self.cleaned_data.get("username", "")
        return "" if is_longer_than(USER_ID_BYTES_MAX, typed) else user_id_key(typed)

    @property
    def actor(self) -> str | None:
        """None for an unknown account: the text may be a password typed into the wrong field."""
        return User.objects.filter(user_id_key=self.account).values_list("user_id", flat=True).first()


class AdminLoginForm(LoginForm, AdminAuthenticationForm):
    """The login of the administration; shares its limits with LoginForm."""


class OwnPasswordChangeForm(LimitedForm, PasswordChangeForm):
    """Limit guesses of the old password by someone who finds an open session."""

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)

    def count(self) -> None:
        """Do nothing: the old password is counted when it is checked."""

    def clean_old_password(self) -> str:
        password: str = self.cleaned_data["old_password"]
        if not self.is_password_of(self.user, password):
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return password


class PasswordResetForm(LimitedForm, forms.Form):
    """Never reveal whether an account has the address: it is looked up after the response."""

    attempt = "password"
    too_many = _("There were too many password reset requests from your network just now. {again}")
    event_of_throttling = "password_reset_throttled"

    email = forms.EmailField(
        label=_("Email address"), max_length=EMAIL_MAX, widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)


class LimitedFormView(FormView):  # type: ignore[type-arg]  # has none at run time
    """A LimitedForm's view: answer with 429 and Retry-After when the form was over a limit."""

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"request": self.request}

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        form = (getattr(response, "context_data", None) or {}).get("form")
        if isinstance(form, LimitedForm) and form.retry_after is not None:
            response.status_code = HTTPStatus.TOO_MANY_REQUESTS
            response.headers["Retry-After"] = str(form.retry_after)
        return response


@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class OwnerFormView(LoginRequiredMixin, LimitedFormView):
    """An OwnerForm's view, for the logged-in owner."""

    @property
    def user(self) -> User:
        return cast(User, self.request.user)

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"user": self.user}
