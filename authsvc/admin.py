"""Users, and sign-ups with their lights, for the administrator."""

from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import BaseUserCreationForm
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from authsvc import traffic_admin  # noqa: F401 - registers its page
from authsvc.identity import user_id_key
from authsvc.lights import Status
from authsvc.models import SignUp, User
from authsvc.replay import ReplayCounts, replay
from eventbus.producer import EventProducer

# A sign beside the colour: a light must be readable without it.
_SIGNS = {Status.PENDING: "◌", Status.SUCCESS: "✓", Status.FAIL: "✕"}


def _to_the_second(at: datetime) -> str:
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}"


class UserCreationForm(BaseUserCreationForm):
    class Meta:
        model = User
        fields = ("user_id", "email", "user_name", "role")
        field_classes: ClassVar[dict[str, type[forms.Field]]] = {}


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    list_display = ("user_id", "email", "user_name", "role", "is_active", "is_staff", "date_joined")
    list_filter = ("role", "is_active", "is_staff", "date_joined")
    search_fields = ("user_id_key__startswith", "email__startswith", "user_name")
    search_help_text = _("The beginning of a user ID or email address, or part of a name.")
    ordering = ("-id",)
    readonly_fields = ("owner_signup_id", "date_joined", "last_login")
    add_form = UserCreationForm
    add_fieldsets = ((None, {"fields": ("user_id", "email", "user_name", "role", "password1", "password2")}),)
    fieldsets = (
        (None, {"fields": ("user_id", "email", "user_name", "role", "password")}),
        (_("Permissions"), {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        (_("Origin"), {"fields": ("owner_signup_id", "date_joined", "last_login")}),
    )
    filter_horizontal = ("groups", "user_permissions")


class LightsFilter(admin.SimpleListFilter):
    title = _("lights")
    parameter_name = "lights"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("pending", _("Pending: a service has not answered")),
            ("red", _("Red: a service refused")),
            ("complete", _("Complete: all have answered")),
            ("stalled", _("Stalled: all tries used up")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SignUp]) -> QuerySet[SignUp]:
        match self.value():
            case "pending":
                return queryset.filter(pending_count__gt=0)
            case "red":
                return queryset.filter(failed_count__gt=0)
            case "complete":
                return queryset.filter(pending_count=0)
            case "stalled":
                return queryset.filter(stalled_at__isnull=False)
        return queryset


class BegunFilter(admin.SimpleListFilter):
    """Since when, down to minutes: a pending sign-up of the last minutes is news, one of last week is trouble."""

    title = _("begun")
    parameter_name = "begun"
    _SPANS: ClassVar[dict[str, timedelta]] = {
        "10m": timedelta(minutes=10), "1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7),
    }  # fmt: skip

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("10m", _("In the last 10 minutes")),
            ("1h", _("In the last hour")),
            ("1d", _("In the last 24 hours")),
            ("7d", _("In the last 7 days")),
            ("older10m", _("More than 10 minutes ago")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SignUp]) -> QuerySet[SignUp]:
        if self.value() == "older10m":
            return queryset.filter(created_at__lt=timezone.now() - timedelta(minutes=10))
        if span := self._SPANS.get(self.value() or ""):
            return queryset.filter(created_at__gte=timezone.now() - span)
        return queryset


@admin.register(SignUp)
class SignUpAdmin(admin.ModelAdmin):
    list_display = ("user_id", "lights_in_colour", "begun", "took", "attempts", "stalled_at")
    list_filter = (LightsFilter, BegunFilter)
    search_fields = ("user_id_key",)
    search_help_text = _("A user ID or its beginning, or a whole sign-up ID.")
    ordering = ("-id",)
    show_full_result_count = False
    actions = ("replay_chosen",)
    fields = (
        "id", "user_id", "email", "user_name", "role", "owner", "verdicts", "version", "created_at", "completed_at",
        "attempts", "next_due_at", "stalled_at",
    )  # fmt: skip
    readonly_fields = fields

    class Media:
        css: ClassVar[dict[str, list[str]]] = {"all": ["authsvc/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: SignUp | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SignUp | None = None) -> bool:
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("authsvc.replay_signup")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[SignUp], search_term: str
    ) -> tuple[QuerySet[SignUp], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(id=UUID(term)), False
        except ValueError:
            return queryset.filter(user_id_key__startswith=user_id_key(term)), False

    @admin.display(description=_("lights"))
    def lights_in_colour(self, signup: SignUp) -> SafeString:
        return format_html_join(
            " ",
            '<span class="light light-{}" title="{}">{} {}</span>',
            (
                (light.status.lower(), light.reason or light.status, _SIGNS[light.status], service)
                for service, light in signup.state.lights.items()
            ),
        )

    @admin.display(description=_("begun"), ordering="created_at")
    def begun(self, signup: SignUp) -> str:
        return _to_the_second(signup.created_at)

    @admin.display(description=_("until complete"))
    def took(self, signup: SignUp) -> str:
        if signup.completed_at is None:
            return "–"
        return f"{(signup.completed_at - signup.created_at).total_seconds():.2f} s"

    @admin.display(description=_("verdicts"))
    def verdicts(self, signup: SignUp) -> SafeString:
        rows = format_html_join(
            "",
            '<tr><th scope="row">{}</th><td><span class="light light-{}">{} {}</span></td><td>{}</td><td>{}</td></tr>',
            (
                (
                    service, light.status.lower(), _SIGNS[light.status], light.status, light.reason or "",
                    _to_the_second(light.decided_at) if light.decided_at else "",
                )
                for service, light in signup.state.lights.items()
            ),
        )  # fmt: skip
        return format_html(
            "<table><thead><tr><th>{}</th><th>{}</th><th>{}</th><th>{}</th></tr></thead><tbody>{}</tbody></table>",
            _("Service"), _("Verdict"), _("Reason"), _("Decided"), rows,
        )  # fmt: skip

    @admin.display(description=_("whose record"))
    def owner(self, signup: SignUp) -> str:
        if signup.is_owner:
            return str(_("This sign-up made auth's record."))
        return str(_("Auth had this user from %(owner)s.") % {"owner": signup.owner_signup_id})

    @admin.action(description=_("Replay: ask every service again"), permissions=["replay"])
    def replay_chosen(self, request: HttpRequest, queryset: QuerySet[SignUp]) -> None:
        # By id: a replay changes what the list's filter chose by.
        queryset = SignUp.objects.filter(pk__in=list(queryset.values_list("pk", flat=True)))
        producer = EventProducer()
        try:
            counts = sum(replay(queryset, producer=producer), ReplayCounts())
        finally:
            producer.close(timeout=5)
        self._log_replay(request, queryset)
        self.message_user(
            request,
            ngettext("%(sent)d sign-up sent again", "%(sent)d sign-ups sent again", counts.sent) % {"sent": counts.sent}
            + str(
                _(", %(skipped)d skipped, %(failed)d failed.") % {"skipped": counts.skipped, "failed": counts.failed}
            ),
            messages.ERROR if counts.failed else messages.SUCCESS,
        )

    def _log_replay(self, request: HttpRequest, queryset: QuerySet[SignUp]) -> None:
        for signup in queryset.only("id", "user_id").iterator(chunk_size=500):
            self.log_change(request, signup, str(_("Replayed")))
