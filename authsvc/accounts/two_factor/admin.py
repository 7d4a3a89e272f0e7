"""Admin display of users' second factors, and the superuser's action that resets one."""

from collections.abc import Sequence

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from authsvc.accounts.two_factor import devices
from authsvc.accounts.two_factor.notices import reset
from authsvc.models import User
from runtime.admin_toolkit.model_admin import ModelAdmin
from runtime.security_log import address_of


class ResetsTwoFactor(ModelAdmin):
    """The reset action, and the second factor's state on the user's page."""

    actions: Sequence[str] = ("reset_two_factor",)

    def has_reset_two_factor_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    @admin.action(description=gettext_lazy("Turn off two-factor authentication"), permissions=["reset_two_factor"])
    def reset_two_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        actor, address = request.user.get_username(), address_of(request)
        # Turning off one's own takes the password and a code, on the account page.
        chosen = list(queryset)
        others = [user for user in chosen if user.pk != request.user.pk]
        done = [user for user in others if reset(user, actor=actor, address=address)]
        for user in done:
            self.log_change(request, user, "Turned off two-factor authentication.")
        words = ngettext(
            "Two-factor authentication was turned off for %(n)d user.",
            "Two-factor authentication was turned off for %(n)d users.",
            len(done),
        )
        words %= {"n": len(done)}
        if without := len(others) - len(done):
            words += " " + ngettext(
                "%(n)d user had not turned it on.", "%(n)d users had not turned it on.", without
            ) % {"n": without}
        if len(others) < len(chosen):
            words += " " + _("Turn off your own two-factor authentication on your account page.")
        self.message_user(request, words, messages.SUCCESS if done else messages.WARNING)

    @admin.display(description=gettext_lazy("two-factor authentication"))
    def two_factor(self, user: User) -> str:
        device = devices.second_factor_of(user)
        if device is None:
            return _("Off")
        words = _("On since %(day)s; recovery codes left: %(n)d")
        return words % {"day": date_format(device.created_at), "n": devices.recovery_codes_left(user)}
