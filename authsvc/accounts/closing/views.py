"""Pages on which owners close their accounts, and keep them after all."""

from functools import partial
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import View

from authsvc.accounts.change_redirect import redirect_to_lights
from authsvc.accounts.closing.schedule import begin_closing, keep_account
from authsvc.accounts.forms import OwnerFormView, PasswordForm
from authsvc.accounts.two_factor.devices import second_factor_of
from authsvc.accounts.two_factor.forms import ConfirmationForm
from authsvc.mail import mail_from, public_link, send_later
from authsvc.models import User
from authsvc.signups.changes import remove_account
from runtime.security_log import log_security_event_of


# Again, because dispatch() below answers staff before the base class does.
@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class CloseView(OwnerFormView):
    """Close the account after the grace period or, without one, at once."""

    template_name = "authsvc/close.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # An administrator's entries in the admin's log belong to the account.
        if request.user.is_authenticated and request.user.is_staff:
            words = _("Staff accounts can only be removed by another administrator. Ask one to remove yours.")
            messages.error(request, words)
            return HttpResponseRedirect(reverse("account"))
        return super().dispatch(request, *args, **kwargs)

    def get_form(self, form_class: Any = None) -> PasswordForm | ConfirmationForm:
        options = self.get_form_kwargs()
        device = second_factor_of(self.user)
        return PasswordForm(**options) if device is None else ConfirmationForm(**options, device=device)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        days = settings.ACCOUNT_CLOSING_DAYS
        return super().get_context_data(**kwargs, title=gettext_lazy("Close your account"), days=days)

    def form_valid(self, form: Any) -> HttpResponse:
        if settings.ACCOUNT_CLOSING_DAYS:
            at = begin_closing(self.user)
            log_security_event_of(self.request, "account_closing", detail=f"{at:%Y-%m-%d}")
            send_later(partial(mail_from, "authsvc/closing", to=self.user.email, at=at, link=public_link("account")))
            return HttpResponseRedirect(reverse("account"))
        row = remove_account(self.user)
        log_security_event_of(self.request, "account_removed", detail=str(row.owner_signup_id))
        logout(self.request)
        return redirect_to_lights(row)


class KeepView(LoginRequiredMixin, View):
    """Keep an account whose grace period has not ended."""

    http_method_names = ("post",)

    def post(self, request: HttpRequest) -> HttpResponse:
        if keep_account(cast(User, request.user)):
            log_security_event_of(request, "account_kept")
            messages.success(request, _("Your account stays open."))
        return HttpResponseRedirect(reverse("account"))
