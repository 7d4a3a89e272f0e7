"""The accounts at the SCIM servers, read-only: auth and the servers decide about them."""

from contextlib import suppress
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from runtime.admin_toolkit.action_admin import ActionAdmin
from runtime.admin_toolkit.read_only_admin import ReadOnlyAdmin
from scimsvc.models import ScimAccount


class ScimAccountAdmin(ReadOnlyAdmin, ActionAdmin):
    """The list and the details of accounts. `last_answer` says what the server did with the last request."""

    list_display = ("owner_signup_id", "server", "scim_id", "version", "last_answer", "answered_at", "removed_at")
    list_filter = ("server", ("removed_at", admin.EmptyFieldListFilter), "answered_at")
    search_fields = ("owner_signup_id", "scim_id", "last_answer")
    search_help_text = _("A complete sign-up ID or SCIM ID, or part of a last answer.")
    ordering = ("-pk",)
    show_full_result_count = False
    fields = (
        "owner_signup_id", "signup_id", "server", "scim_id", "version", "last_answer", "answered_at", "removed_at",
    )  # fmt: skip

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ScimAccount], search_term: str
    ) -> tuple[QuerySet[ScimAccount], bool]:
        if not (term := search_term.strip()):
            return queryset, False
        known = Q(scim_id=term) | Q(last_answer__icontains=term)
        with suppress(ValueError):
            known |= Q(owner_signup_id=UUID(term)) | Q(signup_id=UUID(term))
        return queryset.filter(known), False


if "scim" in settings.DATABASES:
    admin.site.register(ScimAccount, ScimAccountAdmin)
