"""The admin page for changing the live settings."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import format_lazy
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from livesettings.following import check_once
from livesettings.models import ROW, Overrides
from livesettings.values import NAMES, broken_rules, choices_of, meta_of, type_of, with_overrides
from runtime.security_log import log_security_event_of
from runtime.times import to_the_second

# Number of changes shown on the page. Django's history page has all of them.
CHANGES_SHOWN: Final = 20
DEFAULTS: Final = with_overrides({})
UNCHANGED: Final = gettext_noop("Saved without changes.")


def entered(value: object) -> str:
    """Return a value as it is entered and logged."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Exactly, because the page's form sends it back.
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def in_words(value: str) -> str:
    """Translate the result of entered() into the reader's language."""
    named = {"yes": gettext("Yes").lower(), "no": gettext("No").lower()}
    for name in NAMES:
        named |= {each: gettext(words) for each, words in choices_of(name).items()}
    return named.get(value, value)


def translated(message: str) -> str:
    """Translate a change message from the admin log into the reader's language."""
    changes = [change.partition(": ") for change in message.split("; ")]
    return "; ".join(
        gettext(title) + colon + " → ".join(in_words(value) for value in values.split(" → "))
        for title, colon, values in changes
    )


def field_of(name: str) -> forms.Field:
    """Return the form field of a setting. An empty value means the default."""
    meta, default = meta_of(name), getattr(DEFAULTS, name)
    label, what = _(meta.title or name), _(meta.description or "")
    is_bool = type_of(name) is bool
    named = (
        {"yes": _("Yes"), "no": _("No")} if is_bool else {each: _(words) for each, words in choices_of(name).items()}
    )
    if named:
        return forms.TypedChoiceField(
            label=label,
            help_text=what,
            required=False,
            choices=[("", format_lazy("{} ({})", _("Default"), named[entered(default)])), *named.items()],
            empty_value=None,
            coerce=(lambda each: each == "yes") if is_bool else str,
        )
    number: Any = forms.IntegerField if type_of(name) is int else forms.FloatField
    span = format_lazy(_("From {least} to {most}."), least=f"{meta.ge:,}", most=f"{meta.le:,}")
    field: forms.Field = number(
        label=label, help_text=format_lazy("{} {}", what, span), required=False, min_value=meta.ge, max_value=meta.le
    )
    field.widget.attrs["placeholder"] = entered(default)
    return field


class OverridesForm(forms.ModelForm):
    """The form's base. SettingsForm adds a field for each setting, with its name."""

    seen = forms.IntegerField(widget=forms.HiddenInput)

    class Meta:
        model = Overrides
        fields = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["seen"] = self.instance.version
        self.before: dict[str, Any] = dict(self.instance.values)
        for name, value in self.before.items():
            self.initial[name] = entered(value)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        if cleaned["seen"] != self.instance.version:
            raise forms.ValidationError(
                _("Someone has changed these settings since you opened this page. Reload it to see the changes.")
            )
        if problems := broken_rules(self.overrides):
            raise forms.ValidationError(problems)
        return cleaned

    @property
    def overrides(self) -> dict[str, Any]:
        """The chosen values, without settings that are left at their default."""
        return {name: value for name in NAMES if (value := self.cleaned_data.get(name)) is not None}

    def save(self, commit: bool = True) -> Any:
        self.instance.values = self.overrides
        self.instance.version += 1
        return super().save(commit)


# Django's admin looks for the fields on the class.
SettingsForm: Final = type("SettingsForm", (OverridesForm,), {name: field_of(name) for name in NAMES})


@admin.register(Overrides)
class OverridesAdmin(admin.ModelAdmin):
    """A single page, to which the list redirects. Nothing can be added or deleted."""

    form = SettingsForm
    change_form_template = "livesettings/change_form.html"
    readonly_fields = ("present", "changes")
    fieldsets = (
        (
            _("Sign-up"),
            {
                "description": _("An empty field uses its default, which is shown in grey."),
                "fields": ("SIGNUP_OPEN", "SIGNUP_CONFIRM", "SIGNUP_REASONS", "SIGNUP_DEADLINE", "STREAM_HEARTBEAT"),
            },
        ),
        (
            _("Rate limits"),
            {
                "fields": (
                    "RATE_LIMIT_ADDRESS",
                    "RATE_LIMIT_USER_ID",
                    "RATE_LIMIT_TOTAL",
                    "RATE_LIMIT_LOGIN",
                    "RATE_LIMIT_FAILED_LOGIN",
                    "RATE_LIMIT_PASSWORD",
                    "RATE_LIMIT_CONFIRM",
                )
            },
        ),
        (
            _("Retries"),
            {"fields": ("RELAY_FIRST_PAUSE", "RELAY_MAX_PAUSE", "RELAY_MAX_ATTEMPTS", "RELAY_RATE")},
        ),
        (_("Changes"), {"fields": ("changes", "seen")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Overrides | None = None) -> Any:
        if self.has_change_permission(request, obj):
            return super().get_fieldsets(request, obj)
        return [(None, {"fields": ("present", "changes")})]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Overrides | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Overrides]:
        rows = super().get_queryset(request)
        # Serialise concurrent saves, so that the second one sees the new version and is rejected.
        return rows.select_for_update() if request.method == "POST" else rows

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            return super().changelist_view(request, extra_context)
        Overrides.objects.get_or_create(pk=ROW)
        return HttpResponseRedirect(reverse("admin:livesettings_overrides_change", args=[ROW]))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        own = {"title": _("Live settings"), "subtitle": None, "show_save_and_continue": False}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **own})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().history_view(request, object_id, extra_context)
        for entry in (getattr(response, "context_data", None) or {}).get("action_list", ()):
            entry.change_message = translated(entry.get_change_message())
        return response

    def response_change(self, request: HttpRequest, obj: Overrides) -> HttpResponse:
        return HttpResponseRedirect(request.path)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Return a text with old and new values. Django's default lists only the names of the fields."""
        changes = _changes(form.before, form.instance.values)
        return "; ".join(f"{meta_of(name).title}: {change}" for name, change in changes) or UNCHANGED

    def save_model(self, request: HttpRequest, obj: Overrides, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        transaction.on_commit(lambda: self._apply_now(request))
        transaction.on_commit(lambda: _log_changes(request, form.before, obj.values))

    def _apply_now(self, request: HttpRequest) -> None:
        check_once()
        self.message_user(request, _("Saved. The new values apply within a second."), messages.SUCCESS)

    @admin.display(description=_("values in effect"))
    def present(self, overrides: Overrides) -> SafeString:
        values = with_overrides(overrides.values)
        return _table(
            (gettext(meta_of(name).title or name), in_words(entered(getattr(values, name)))) for name in NAMES
        )

    @admin.display(description=_("recent changes"))
    def changes(self, overrides: Overrides) -> SafeString | str:
        entries = LogEntry.objects.filter(
            content_type=ContentType.objects.get_for_model(Overrides), object_id=str(ROW)
        ).select_related("user")[:CHANGES_SHOWN]
        rows = [(to_the_second(each.action_time), each.user, translated(each.get_change_message())) for each in entries]
        return _table(rows) if rows else gettext("No changes so far: every setting has its default.")


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings whose values differ, each with its old and new value."""
    old, new = with_overrides(before), with_overrides(after)
    for name in NAMES:
        if getattr(old, name) != getattr(new, name):
            yield name, f"{entered(getattr(old, name))} → {entered(getattr(new, name))}"


def _log_changes(request: HttpRequest, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name, change in _changes(before, after):
        log_security_event_of(request, "settings_changed", subject=name, detail=change)


def _table(rows: Iterable[tuple[object, ...]]) -> SafeString:
    lines = (format_html("<tr>{}</tr>", format_html_join("", "<td>{}</td>", ((cell,) for cell in row))) for row in rows)
    return format_html("<table><tbody>{}</tbody></table>", format_html_join("", "{}", ((line,) for line in lines)))
