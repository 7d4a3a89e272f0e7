"""Second step of the login. Nobody is logged in before the code is right: until then, the session only stores the
user whose password was entered."""

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
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from authsvc.accounts.forms import LimitedFormView
from authsvc.accounts.sessions import has_password_hash
from authsvc.accounts.two_factor.devices import second_factor_of
from authsvc.accounts.two_factor.forms import CodeForm
from authsvc.models import User

# Seconds for which a correct password stays valid without the code.
VALID_FOR: Final = 600
_KEY: Final = "second_step"


class TwoStepLoginView(LimitedFormView, django_views.LoginView):
    """Django's login, followed by the second step when the user has a second factor."""

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        if second_factor_of(user) is None:
            return super().form_valid(form)
        self.request.session[_KEY] = {"user": user.pk, "hash": user.get_session_auth_hash(), "at": time.time()}
        return HttpResponseRedirect(with_next(reverse("login_code"), self.get_redirect_url()))


@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class CodeView(django_views.RedirectURLMixin, LimitedFormView):
    """Ask for the code, and log the user in when it is right."""

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
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"user": self.user, "device": self.device}

    def form_valid(self, form: CodeForm) -> HttpResponse:
        del self.request.session[_KEY]
        login(self.request, self.user)
        # Also after a recovery code: the session is bound to the second factor that exists now.
        django_otp.login(self.request, self.device)
        return super().form_valid(form)


def with_next(url: str, next_url: str) -> str:
    return f"{url}?{urlencode({'next': next_url})}" if next_url else url


def _expected_in(session: SessionBase) -> User | None:
    """Return the user whose code this session expects, if the password was given recently and has not changed since."""
    step = session.get(_KEY)
    if not step or not 0 <= time.time() - step["at"] < VALID_FOR:
        return None
    user = User.objects.filter(pk=step["user"], is_active=True).first()
    if user is None or not has_password_hash(user, step["hash"]):
        return None
    return user
