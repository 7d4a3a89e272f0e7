"""The admin pages of sign-ups and their lights."""

from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from authsvc.accounts import users_admin  # noqa: F401 - each registers its pages
from authsvc.lights import Kind
from authsvc.models import EventTransaction, UnconfirmedSignUp
from authsvc.operations import traffic_page  # noqa: F401 - each registers its pages
from authsvc.operations.replay_action import ReplayForm, replay_chosen, services_to_ask
from authsvc.operations.signup_filters import BegunFilter, FailureGroupFilter, LightsFilter
from authsvc.operations.timeline import timeline_of
from runtime.admin_toolkit.action_admin import ActionAdmin
from runtime.admin_toolkit.read_only_admin import ReadOnlyAdmin
from runtime.admin_toolkit.user_fields_admin import ShowsUserFields
from runtime.equality import user_id_key
from runtime.light_wording import SIGNS, light_in_words
from runtime.mail_addresses import shown_address
from runtime.times import to_the_second

# Shown instead of an erased name or address (docs/adr/0040), neither of which is empty before its erasure.
ERASED: Final = _("erased")

# The account in a title if its user ID is erased.
ANONYMOUS: Final = _("an erased account")

_TITLES = {Kind.SIGNUP: _("Sign-up of %s"), Kind.CHANGE: _("Change of %s"), Kind.REMOVAL: _("Removal of %s")}


@admin.register(EventTransaction)
class EventTransactionAdmin(ReadOnlyAdmin, ActionAdmin):
    list_display = ("user", "kind", "lights_in_colour", "begun", "took", "shown_attempts")
    list_filter = ("kind", LightsFilter, FailureGroupFilter, BegunFilter)
    search_fields = ("user_id_key",)
    search_help_text = _("A user ID or its beginning, or a complete sign-up ID.")
    # Not by ID, which the client chooses with the Idempotency-Key.
    ordering = ("-created_at", "-id")
    # Only indexed columns: sorting by any other would read and sort all rows for one page.
    sortable_by = ("user", "begun")
    show_full_result_count = False
    # Facet counts would read every row. The filter by failure group, where counts matter, has its own.
    show_facets = admin.ShowFacets.NEVER
    actions = ("replay_chosen",)
    action_form = ReplayForm
    change_form_template = "authsvc/signup.html"
    fieldsets = (
        (_("Details entered"), {"fields": (("user", "typed_name"), ("typed_email", "role"), "owner")}),
        (_("Stored state"), {"fields": (("id", "trace"), ("version", "attempts"), "record_version")}),
    )
    readonly_fields = (
        "user", "typed_name", "typed_email", "role", "owner", "id", "trace", "version", "attempts", "record_version"
    )  # fmt: skip

    def has_view_permission(self, request: HttpRequest, obj: EventTransaction | None = None) -> bool:
        return request.user.has_perm("authsvc.view_signup")

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("authsvc.replay_signup")

    def get_queryset(self, request: HttpRequest) -> QuerySet[EventTransaction]:
        return super().get_queryset(request).defer("password")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[EventTransaction], search_term: str
    ) -> tuple[QuerySet[EventTransaction], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        found = Q(user_id_key__startswith=user_id_key(term))
        # The term may be a sign-up ID as well, so search for both.
        with suppress(ValueError):
            found |= Q(id=UUID(term))
        return queryset.filter(found), False

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirect to the transaction's timeline, which includes the actions of administrators."""
        return HttpResponseRedirect(reverse("admin:authsvc_eventtransaction_change", args=[object_id]))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        signup = context["original"]
        context |= {"timeline": timeline_of(signup), "lights": self.lights_in_colour(signup), "subtitle": None}
        context["title"] = _TITLES[Kind(signup.kind)] % (signup.user_id or ANONYMOUS)
        if self.has_replay_permission(request):
            context["services_to_ask"] = services_to_ask()
        return super().render_change_form(request, context, *args, **kwargs)

    # --- Display --------------------------------------------------------------------------------------------------

    @admin.display(description=_("user ID"), ordering="user_id_key")
    def user(self, signup: EventTransaction) -> str:
        return signup.user_id or str(ERASED)

    @admin.display(description=_("lights"))
    def lights_in_colour(self, signup: EventTransaction) -> SafeString:
        return format_html_join(
            " ",
            '<span class="light light-{}" title="{}">{} {}</span>',
            (
                (
                    light.status.lower(),
                    light_in_words(light.status, light.reason, kind=signup.kind),
                    SIGNS[light.status],
                    service,
                )
                for service, light in signup.state.lights.items()
            ),
        )

    @admin.display(description=_("started"), ordering="created_at")
    def begun(self, signup: EventTransaction) -> str:
        return to_the_second(signup.created_at)

    @admin.display(description=_("time to complete"))
    def took(self, signup: EventTransaction) -> str:
        if signup.completed_at is None:
            return "–"
        return f"{(signup.completed_at - signup.created_at).total_seconds():.2f} s"

    @admin.display(description=_("attempts"))
    def shown_attempts(self, signup: EventTransaction) -> str:
        return str(_("%d, stalled") % signup.attempts) if signup.stalled_at else str(signup.attempts)

    @admin.display(description=_("name"))
    def typed_name(self, signup: EventTransaction) -> str:
        return signup.user_name or str(ERASED)

    @admin.display(description=_("email address"))
    def typed_email(self, signup: EventTransaction) -> str:
        return shown_address(signup.email) or str(ERASED)

    @admin.display(description=_("trace ID"))
    def trace(self, signup: EventTransaction) -> str:
        return signup.id.hex

    @admin.display(description=_("auth's record"))
    def owner(self, signup: EventTransaction) -> SafeString | str:
        if signup.is_owner and signup.kind == Kind.SIGNUP:
            return str(_("Created by this sign-up."))
        found = f"{reverse('admin:authsvc_eventtransaction_changelist')}?q={signup.owner_signup_id}"
        link = format_html('<a href="{}">{}</a>', found, signup.owner_signup_id)
        is_refused = signup.kind == Kind.SIGNUP
        words = _("Auth already had this user, from sign-up") if is_refused else _("Of the account of sign-up")
        return format_html("{} {}", words, link)

    # --- Actions --------------------------------------------------------------------------------------------------

    @admin.action(description=_("Replay: ask the services again"), permissions=["replay"])
    def replay_chosen(self, request: HttpRequest, queryset: QuerySet[EventTransaction]) -> HttpResponse | None:
        return replay_chosen(self, request, queryset)


@admin.register(UnconfirmedSignUp)
class UnconfirmedSignUpAdmin(ReadOnlyAdmin, ShowsUserFields):
    """Read-only: only the person can confirm, and unconfirmed sign-ups are deleted when they expire."""

    list_display = ("user_id", "shown_email", "begun")
    search_fields = ("user_id_key",)
    search_help_text = _("A user ID or its beginning.")
    ordering = ("-created_at",)
    sortable_by = ()
    show_full_result_count = False
    fields = ("user_id", "user_name", "shown_email", "role", "id", "begun")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[UnconfirmedSignUp]:
        return super().get_queryset(request).defer("password")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UnconfirmedSignUp], search_term: str
    ) -> tuple[QuerySet[UnconfirmedSignUp], bool]:
        if term := search_term.strip():
            queryset = queryset.filter(user_id_key__startswith=user_id_key(term))
        return queryset, False

    @admin.display(description=_("started"))
    def begun(self, row: UnconfirmedSignUp) -> str:
        return to_the_second(row.created_at)
