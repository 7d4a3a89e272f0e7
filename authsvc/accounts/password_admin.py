"""Log a security event when an administrator sets a user's password. The mail is sent as for every new password."""

from typing import Any

from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminPasswordChangeForm
from django.http import HttpRequest

from runtime.security_log import log_security_event_of


class PasswordEventsAdmin(UserAdmin):  # type: ignore[type-arg]  # has none at run time
    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Called by Django after every save; on the password page it is the only method that gets the request."""
        if isinstance(form, AdminPasswordChangeForm):
            detail = None if form.cleaned_data["set_usable_password"] else "login by password disabled"
            log_security_event_of(request, "password_changed", subject=form.user.user_id, detail=detail)
        return super().construct_change_message(request, form, formsets, add)
