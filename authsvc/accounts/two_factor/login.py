"""The login's second step. Until the code is right nobody is logged in: the session only remembers whose password it
was."""

import time
from typing import Any, Final
from urllib.parse import urlencode

import django_otp
from django.contrib.auth import login
from django.contrib.auth import views as django_views
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import FormView

from authsvc.accounts.forms import told_when
from authsvc.accounts.two_factor.devices import second_factor_of
from authsvc.accounts.two_factor.forms import CodeForm
from authsvc.models import User

# Seconds from the right password until it has to be given again.
VALID_FOR: Final = 600
_KEY: Final = "second_step"


class TwoStepLoginView(django_views.LoginView):
    """Django's, which goes on to the second step when the user has a second factor."""

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        if second_factor_of(user) is None:
            return super().form_valid(form)
        self.request.session[_KEY] = {"user": user.pk, "hash": user.get_session_auth_hash(), "at": time.time()}
        return HttpResponseRedirect(with_next(reverse("login_code"), self.get_redirect_url()))


@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class CodeView(django_views.RedirectURLMixin, FormView):  # type: ignore[type-arg]  # has none at run time
    """Asks for the code, and logs in whoever gives it."""

    template_name = "authsvc/login_code.html"
    form_class = CodeForm
    next_page = "account"
    extra_context = {"title": _("Enter your code")}
    user: User
    device: Any

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        user = _expected_in(request.session)
        self.device = user and second_factor_of(user)
        if user is None or self.device is None:
            return HttpResponseRedirect(with_next(reverse("login"), self.get_redirect_url()))
        self.user = user
        return told_when(super().dispatch(request, *args, **kwargs))

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"request": self.request, "user": self.user, "device": self.device}

    def form_valid(self, form: CodeForm) -> HttpResponse:
        del self.request.session[_KEY]
        login(self.request, self.user)
        # For a recovery code too: what the session proves is the second factor that exists now.
        django_otp.login(self.request, self.device)
        return super().form_valid(form)


def with_next(url: str, next_url: str) -> str:
    return f"{url}?{urlencode({'next': next_url})}" if next_url else url


def _expected_in(session: SessionBase) -> User | None:
    """Whose code is asked for in this session, where the password was right a short time ago and is still the same."""
    step = session.get(_KEY)
    if not step or not 0 <= time.time() - step["at"] < VALID_FOR:
        return None
    user = User.objects.filter(pk=step["user"], is_active=True).first()
    if user is None or not constant_time_compare(step["hash"], user.get_session_auth_hash()):
        return None
    return user
