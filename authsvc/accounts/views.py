"""The login and password pages."""

from typing import Any, cast

from django.contrib.auth import views as django_views
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.messages.views import SuccessMessageMixin
from django.http import HttpResponse
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy as _

from authsvc.accounts.forms import LimitedFormView, LoginForm, OwnPasswordChangeForm, PasswordResetForm
from authsvc.accounts.language_switch import KeepsTyped
from authsvc.accounts.last_signup import USER_ID_COOKIE, user_id_of
from authsvc.accounts.password_mails import send_reset_link
from authsvc.accounts.two_factor.login import TwoStepLoginView
from runtime.security_log import address_of, log_security_event, log_security_event_of


class PasswordChangeView(LimitedFormView, SuccessMessageMixin, django_views.PasswordChangeView):  # type: ignore[type-arg]  # has none at run time
    form_class = OwnPasswordChangeForm
    template_name = "authsvc/password_change.html"
    title = _("Change your password")
    success_url = reverse_lazy("account")
    success_message = _("Your password has been changed.")

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        log_security_event_of(self.request, "password_changed", subject=form.user.user_id)
        return response


class LoginView(KeepsTyped, TwoStepLoginView):
    template_name = "authsvc/login.html"
    authentication_form = LoginForm

    def get_initial(self) -> dict[str, Any]:
        return {"username": user_id_of(self.request.COOKIES)}

    def get_form(self, form_class: Any = None) -> AuthenticationForm:
        form = cast(AuthenticationForm, super().get_form(form_class))
        if form.initial["username"]:
            # Focus the first empty field.
            form.fields["username"].widget.attrs.pop("autofocus", None)
            form.fields["password"].widget.attrs["autofocus"] = True
        return form

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_valid(form)
        response.delete_cookie(USER_ID_COOKIE)
        return response


class PasswordResetView(LimitedFormView, django_views.PasswordContextMixin, KeepsTyped):
    """Takes the same time whether or not an account has the address (docs/adr/0044)."""

    form_class = PasswordResetForm
    template_name = "authsvc/password_reset.html"
    title = _("Forgot your password?")
    success_url = reverse_lazy("password_reset_done")

    def form_valid(self, form: PasswordResetForm) -> HttpResponse:
        send_reset_link(form.cleaned_data["email"], address=address_of(self.request))
        return super().form_valid(form)


class PasswordResetConfirmView(SuccessMessageMixin, django_views.PasswordResetConfirmView):  # type: ignore[type-arg]  # the same
    template_name = "authsvc/password_set.html"
    title = _("Choose a new password")
    success_url = reverse_lazy("login")
    success_message = _("Your new password is set. You can log in with it now.")

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        log_security_event("password_reset", actor=form.user.user_id, address=address_of(self.request))
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        return context if self.validlink else context | {"title": _("This link no longer works")}
