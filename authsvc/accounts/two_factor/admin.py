"""Admin display of users' second factors, and the superuser's action that resets one."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from authsvc.accounts.two_factor import devices
from authsvc.accounts.two_factor.notices import reset
from authsvc.models import User
from runtime.admin_toolkit.long_action import progress_of, progress_page, work_on
from runtime.admin_toolkit.model_admin import ModelAdmin
from runtime.security_log import address_of

# Users per step of a long action.
PAGE: Final = 100
# Outcomes that the action counts.
DONE: Final = "done"
WITHOUT: Final = "without"
OWN: Final = "own"


class ResetsTwoFactor(ModelAdmin):
    """The reset action, and the second factor's state on the user's page."""

    actions: Sequence[str] = ("reset_two_factor",)

    def has_reset_two_factor_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    @admin.action(description=gettext_lazy("Turn off two-factor authentication"), permissions=["reset_two_factor"])
    def reset_two_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
        """Work for as long as WORKS_FOR allows, and return a page that goes on, or None at the end."""

        def turn_off(keys: Sequence[Any]) -> dict[str, int]:
            outcomes = Counter(self._turn_off(request, user) for user in User.objects.filter(pk__in=keys))
            # Others were removed meanwhile.
            return outcomes + Counter({WITHOUT: len(keys) - outcomes.total()})

        progress = work_on(progress_of(request, queryset), queryset, turn_off, rows=PAGE)
        if not progress.is_ended:
            return progress_page(self, request, progress, _("Turn off two-factor authentication"))
        done, without = progress.counts.get(DONE, 0), progress.counts.get(WITHOUT, 0)
        words = ngettext(
            "Two-factor authentication was turned off for %(n)d user.",
            "Two-factor authentication was turned off for %(n)d users.",
            done,
        )
        words %= {"n": done}
        if without:
            words += " " + ngettext(
                "%(n)d user had not turned it on.", "%(n)d users had not turned it on.", without
            ) % {"n": without}
        if progress.counts.get(OWN):
            words += " " + _("Turn off your own two-factor authentication on your account page.")
        self.message_user(request, words, messages.SUCCESS if done else messages.WARNING)
        return None

    def _turn_off(self, request: HttpRequest, user: User) -> str:
        # Turning off one's own takes the password and a code, on the account page.
        if user.pk == request.user.pk:
            return OWN
        if not reset(user, actor=request.user.get_username(), address=address_of(request)):
            return WITHOUT
        self.log_change(request, user, "Turned off two-factor authentication.")
        return DONE

    @admin.display(description=gettext_lazy("two-factor authentication"))
    def two_factor(self, user: User) -> str:
        device = devices.second_factor_of(user)
        if device is None:
            return _("Off")
        words = _("On since %(day)s; recovery codes left: %(n)d")
        return words % {"day": date_format(device.created_at), "n": devices.recovery_codes_left(user)}
