"""Pages to turn the second factor on and off, and to get recovery codes."""

from base64 import b32encode
from typing import Any, cast

import django_otp
import segno
from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import RedirectURLMixin
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import TemplateView

from authsvc.accounts.forms import LimitedFormView
from authsvc.accounts.two_factor import devices
from authsvc.accounts.two_factor.forms import ConfirmationForm, SetupForm
from authsvc.accounts.two_factor.login import with_next
from authsvc.accounts.two_factor.notices import record
from authsvc.accounts.two_factor.rules import must_set_up
from authsvc.models import User
from runtime.security_log import SecurityEvent, address_of


@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class _Page(LoginRequiredMixin, RedirectURLMixin):
    """A page for the logged-in user that preserves the `next` URL."""

    request: HttpRequest
    next_page = "two_factor"

    @property
    def user(self) -> User:
        return cast(User, self.request.user)

    def has_second_factor(self) -> bool:
        return devices.second_factor_of(self.user) is not None

    def redirect(self, view: str) -> HttpResponse:
        return HttpResponseRedirect(with_next(reverse(view), self.get_redirect_url()))

    def record(self, event: SecurityEvent) -> None:
        record(event, self.user, address=address_of(self.request))


class TwoFactorView(_Page, TemplateView):
    """Show whether the second factor is on; a POST starts the setup."""

    template_name = "authsvc/two_factor.html"

    def post(self, request: HttpRequest) -> HttpResponse:
        if self.has_second_factor():
            return self.redirect("two_factor")
        devices.begin_setup(self.user)
        return self.redirect("two_factor_setup")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        device = devices.second_factor_of(self.user)
        context = {"device": device, "is_required": must_set_up(self.user)}
        if device:
            context["codes_left"] = devices.recovery_codes_left(self.user)
        return super().get_context_data(**kwargs, **context)


class _ConfirmedView(_Page, LimitedFormView):
    """Act once the password and a code are right."""

    form_class = ConfirmationForm
    title: Any

    def find_device(self) -> Any:
        """Return the device whose code is asked for, or None if there is nothing to do here."""
        return devices.second_factor_of(self.user)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated:
            self.device = self.find_device()
            if self.device is None:
                return self.redirect("two_factor")
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"user": self.user, "device": self.device}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, title=self.title)

    def show_codes(self, codes: list[str]) -> HttpResponse:
        """Render the recovery codes, which no other page ever shows."""
        self.template_name = "authsvc/two_factor_codes.html"
        context = {"recovery_codes": codes, "go_on": self.get_redirect_url() or reverse("two_factor")}
        return self.render_to_response(super().get_context_data(title=_("Your recovery codes"), **context))


class SetupView(_ConfirmedView):
    """Show the new secret, and turn the second factor on with the first code."""

    template_name = "authsvc/two_factor_setup.html"
    form_class = SetupForm
    title = gettext_lazy("Set up your authenticator app")

    def find_device(self) -> Any:
        return None if self.has_second_factor() else devices.device_in_setup(self.user)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        secret = b32encode(self.device.bin_key).decode()
        grouped = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
        picture = segno.make(self.device.config_url).svg_data_uri(scale=4, border=4, light="#fff")
        return super().get_context_data(**kwargs, secret=grouped, picture=picture)

    def form_valid(self, form: ConfirmationForm) -> HttpResponse:
        codes = devices.turn_on(self.device)
        if codes is None:
            return self.redirect("two_factor")
        self.request.session.cycle_key()
        django_otp.login(self.request, self.device)
        self.record("two_factor_enabled")
        return self.show_codes(codes)


class RecoveryCodesView(_ConfirmedView):
    """Replace the recovery codes."""

    template_name = "authsvc/two_factor_new_codes.html"
    title = gettext_lazy("Create new recovery codes")

    def form_valid(self, form: ConfirmationForm) -> HttpResponse:
        codes = devices.new_recovery_codes(self.user)
        self.record("recovery_codes_renewed")
        return self.show_codes(codes)


class TurnOffView(_ConfirmedView):
    """Remove the second factor."""

    template_name = "authsvc/two_factor_off.html"
    title = gettext_lazy("Turn off two-factor authentication")

    def form_valid(self, form: ConfirmationForm) -> HttpResponse:
        devices.turn_off(self.user)
        self.record("two_factor_disabled")
        messages.success(self.request, _("Two-factor authentication has been turned off."))
        return self.redirect("two_factor")
