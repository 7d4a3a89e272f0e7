"""Admin actions that are refused with a clear error if the user has no permission."""

from typing import Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import model_format_dict
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from runtime.admin_toolkit.restricted_admin import RestrictedAdmin


class ActionAdmin(RestrictedAdmin):
    """An admin whose list refuses an action that the user has no permission for, instead of ignoring it.

    Django does not offer such an action, and silently ignores one that is posted anyway.
    """

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                self.opts.pk.to_python(chosen)
            except ValidationError:
                # Otherwise the query for the chosen rows would fail.
                raise BadRequest("a chosen row has an invalid key") from None
        for name in request.POST.getlist("action"):
            if (action := self.get_action(name)) and name not in self.get_actions(request):
                title = action[2] % model_format_dict(self.opts)
                raise PermissionDenied(
                    _("You do not have permission to do this: “%(action)s”. Nothing was changed.") % {"action": title}
                )
        title = capfirst(str(self.opts.verbose_name_plural))
        return super().changelist_view(request, {"title": title, **(extra_context or {})})
