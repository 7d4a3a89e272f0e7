"""The account page, and the page behind the link that confirms a new email address."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.generic import TemplateView

from authsvc.accounts.change_redirect import lights_path, redirect_to_lights
from authsvc.accounts.forms import OwnerFormView
from authsvc.accounts.language_switch import KeepsTyped
from authsvc.accounts.profile.address_links import AddressLinkError, address_in
from authsvc.accounts.profile.address_mails import ask_to_confirm
from authsvc.accounts.profile.forms import ProfileForm
from authsvc.lights import Kind
from authsvc.models import EventTransaction, NoSuchAccountError, SignUp, User
from authsvc.signups.changes import OutdatedError, change_account
from livesettings.values import live
from runtime.light_wording import shown_light
from runtime.mail_addresses import shown_address
from runtime.security_log import address_of, log_security_event_of


class AccountView(OwnerFormView, KeepsTyped):
    """The owner's account, with the lights of the sign-up that created it and of its newest change.

    Accounts whose sign-up has been purged have no lights.
    """

    template_name = "authsvc/account.html"
    form_class = ProfileForm

    def get_initial(self) -> dict[str, Any]:
        return dict(ProfileForm.values_of(self.user))

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        mine = {"owner_signup_id": self.user.owner_signup_id}
        signup = SignUp.objects.filter(id=self.user.owner_signup_id).first()
        change = EventTransaction.objects.filter(kind=Kind.CHANGE, **mine).order_by("-record_version").first()
        context = {
            "address": shown_address(self.user.email),
            "signup": signup,
            "lights": list(_shown_lights(signup)),
            "change": change,
            "change_lights": list(_shown_lights(change)),
            "change_path": lights_path(change) if change else None,
        }
        return super().get_context_data(**context, **kwargs)

    def form_valid(self, form: ProfileForm) -> HttpResponse:
        try:
            user, row = form.save()
        except OutdatedError:
            if (present := User.objects.filter(pk=self.user.pk).first()) is None:
                raise NoSuchAccountError from None
            form.add_error(None, form.outdated(present))
            return self.form_invalid(form)
        except IntegrityError:
            form.add_error("email", _("This email address is taken."))
            return self.form_invalid(form)
        if row is not None:
            note_change(self.request, row)
        if email := form.address_to_confirm:
            log_security_event_of(self.request, "address_change_requested", subject=user.user_id)
            ask_to_confirm(user, email, address=address_of(self.request))
            words = _(
                "We sent a message to %(email)s. Open the link in it to use this address; until then, your account "
                "keeps the present one. The link works for an hour. If nothing arrives, look in your spam folder, and "
                "check the address."
            )
            messages.success(self.request, words % {"email": shown_address(email)})
        elif row is not None:
            return redirect_to_lights(row)
        else:
            messages.success(self.request, _("You changed nothing, so nothing was saved."))
        return HttpResponseRedirect(reverse("account"))


@method_decorator(never_cache, name="dispatch")
class AddressView(LoginRequiredMixin, TemplateView):
    """Give the account the address that the link confirms. Only the account's own session can do so: somebody else who
    reads the mail, such as the owner of a mailbox that was entered by mistake, can't be made to use it."""

    template_name = "authsvc/address.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        try:
            context["address"] = shown_address(address_in(kwargs["token"], cast(User, self.request.user)))
        except AddressLinkError as error:
            context["reason"] = error.reason
        return context

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the address, and change nothing: mail programs open links too."""
        context = self.get_context_data(**kwargs)
        status = HTTPStatus.OK if "address" in context else HTTPStatus.GONE
        return self.render_to_response(context, status=status)

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        user = User.objects.filter(pk=cast(User, request.user).pk).first()
        if user is None:
            raise NoSuchAccountError
        try:
            user.email = address_in(token, user)
            row = change_account(user)
        except (AddressLinkError, OutdatedError):
            return self.get(request, token=token)
        except IntegrityError:
            context = super().get_context_data(token=token, reason="taken")
            return self.render_to_response(context, status=HTTPStatus.CONFLICT)
        if row is None:
            return HttpResponseRedirect(reverse("account"))
        note_change(request, row)
        return redirect_to_lights(row)


def note_change(request: HttpRequest, row: EventTransaction) -> None:
    """Log which fields this request changed."""
    log_security_event_of(request, "account_changed", subject=row.user_id, detail=row.changed_fields)


def _shown_lights(row: EventTransaction | None) -> Iterator[dict[str, Any]]:
    if row is None:
        return
    for service, light in row.state.lights.items():
        shown = shown_light(service, light.status, light.reason, shows_reasons=live.SIGNUP_REASONS, kind=row.state.kind)
        yield {**shown, "decided_at": light.decided_at}
