"""Admin pages of dead letters. Viewing them needs one permission, replaying and discarding them another."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, Final, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from eventbus.deadletters.letters import IN_THE_ADMIN, LetterResult, discard, replay
from eventbus.errors import DeliveryError
from eventbus.models import DeadLetter
from eventbus.producer import EventProducer
from runtime.admin_toolkit.action_admin import ActionAdmin
from runtime.admin_toolkit.read_only_admin import ReadOnlyAdmin
from runtime.times import to_the_second

# Characters of a value shown on its page. `manage.py dead_letters show` shows the whole value.
VALUE_SHOWN: Final = 20_000
# Characters of an error shown in the list.
ERROR_SHOWN: Final = 80
# Number of values that a filter offers, most frequent first.
VALUES_SHOWN: Final = 30
# Number of refusals that are shown individually.
MOST_SHOWN: Final = 10


class ReasonForm(ActionForm):
    """The fields beside the choice of an action."""

    reason = forms.CharField(required=False, label=_("Reason:"), max_length=1000)
    again = forms.BooleanField(required=False, label=_("Include letters that were already replayed or discarded"))


class CountedFilter(admin.SimpleListFilter):
    """Filter by the values of one column, with the number of letters for each.

    One query counts for all of these filters; Django's own facets take two queries per filter."""

    column: ClassVar[str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        counts = Counter[str]()
        for row in _counted(request):
            counts[row[self.column]] += row["letters"]
        return [(value, f"{shown} ({counts[value]})") for value, shown in self.values(counts)]

    def values(self, counts: Counter[str]) -> list[tuple[str, Any]]:
        return [(value, value) for value, _count in counts.most_common(VALUES_SHOWN)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> QuerySet[DeadLetter]:
        return queryset.filter(**{self.column: self.value()}) if self.value() is not None else queryset


class StateFilter(CountedFilter):
    title = _("state")
    column, parameter_name = "state", "state__exact"

    def values(self, counts: Counter[str]) -> list[tuple[str, Any]]:
        return list(DeadLetter.State.choices)


class GroupFilter(CountedFilter):
    title = _("group")
    column = parameter_name = "group"


class TopicFilter(CountedFilter):
    title = _("topic")
    column = parameter_name = "topic"


class ErrorFilter(CountedFilter):
    title = _("error")
    column = parameter_name = "error"


def _counted(request: HttpRequest) -> list[dict[str, Any]]:
    """Count the letters by state, group, topic and error, once per request."""
    if not hasattr(request, "counted_letters"):
        columns = DeadLetter.objects.order_by().values("state", "group", "topic", "error")
        vars(request)["counted_letters"] = list(columns.annotate(letters=Count("pk")))
    counted: list[dict[str, Any]] = vars(request)["counted_letters"]
    return counted


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin, ActionAdmin):
    list_display = ("id", "put_aside", "state", "group", "error_begins", "key_shown", "original_place")
    list_display_links = ("id", "error_begins")
    list_filter = (StateFilter, GroupFilter, ErrorFilter, TopicFilter, "put_aside_at")
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    search_fields = ("message", "error")
    search_help_text = _("A complete key (a user ID), or part of the error.")
    ordering = ("-id",)
    list_per_page = 50
    actions = ("replay_chosen", "discard_chosen")
    action_form = ReasonForm
    change_form_template = "eventbus/dead_letter.html"
    fieldsets = (
        (None, {"fields": ("state", "put_aside", "group", "error", "message_shown", "actions_shown")}),
        (_("Origin"), {"fields": ("original_place", "sent", "letter_place", "key_shown", "headers_shown", "cut")}),
        (_("Value"), {"fields": ("value_shown",)}),
    )

    def has_handle_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("eventbus.handle_deadletter")

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        # Otherwise one page of the list could load 50 MB.
        return super().get_queryset(request).defer("value", "headers")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], search_term: str
    ) -> tuple[QuerySet[DeadLetter], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        of_error = Q(message__icontains=term) | Q(error__icontains=term)
        return queryset.filter(Q(key=term.encode()) | of_error), False

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirect to the letter's page, which lists all actions, whether from the admin or a command."""
        return HttpResponseRedirect(reverse("admin:eventbus_deadletter_change", args=[object_id]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_handle = {"may_handle": self.has_handle_permission(request)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **may_handle})

    # --- Display --------------------------------------------------------------------------------------------------

    @admin.display(description=_("message"), ordering="topic")
    def original_place(self, letter: DeadLetter) -> str:
        return letter.place

    @admin.display(description=_("in the dead-letter topic"))
    def letter_place(self, letter: DeadLetter) -> str:
        return letter.letter_place

    @admin.display(description=_("key"), empty_value="–")
    def key_shown(self, letter: DeadLetter) -> str | None:
        return None if letter.key is None else letter.key_text

    @admin.display(description=_("error"), ordering="error")
    def error_begins(self, letter: DeadLetter) -> str:
        return letter.error_line[:ERROR_SHOWN]

    @admin.display(description=_("dead-lettered"), ordering="put_aside_at")
    def put_aside(self, letter: DeadLetter) -> str:
        return to_the_second(letter.put_aside_at)

    @admin.display(description=_("sent"))
    def sent(self, letter: DeadLetter) -> str | None:
        return to_the_second(letter.sent_at) if letter.sent_at else None

    @admin.display(description=_("error text"))
    def message_shown(self, letter: DeadLetter) -> SafeString:
        return format_html("<pre>{}</pre>", letter.message)

    @admin.display(description=_("headers"))
    def headers_shown(self, letter: DeadLetter) -> SafeString:
        return format_html("<pre>{}</pre>", "\n".join(f"{name}: {value}" for name, value in letter.header_texts))

    @admin.display(description=_("value"))
    def value_shown(self, letter: DeadLetter) -> SafeString | str:
        if letter.value is None:
            return str(_("The message has no value."))
        text = letter.value_text
        note = ""
        if len(text) > VALUE_SHOWN:
            note = _("Only the beginning is shown; manage.py dead_letters show %(id)d shows the whole value.") % {
                "id": letter.pk
            }
        return format_html("<pre>{}</pre>{}", text[:VALUE_SHOWN], note)

    @admin.display(description=_("actions"))
    def actions_shown(self, letter: DeadLetter) -> SafeString | str:
        rows = [
            (to_the_second(action.at), action.get_action_display(), action.by, action.reason)
            for action in letter.actions.all()
        ]
        if not rows:
            return str(_("None yet."))
        return format_html(
            "<table><tbody>{}</tbody></table>",
            format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", rows),
        )

    # --- Actions --------------------------------------------------------------------------------------------------

    @admin.action(description=_("Replay: send it again"), permissions=["handle"])
    def replay_chosen(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        producer = EventProducer()
        try:
            outcomes = replay(ids_of(queryset), by=_who(request), producer=producer, **_wish(request))
            done = self._report_refused(request, outcomes, str(_("Replayed")))
        finally:
            producer.close(timeout=5)
        self.message_user(request, ngettext("%d message sent again.", "%d messages sent again.", done) % done)

    @admin.action(description=_("Discard, with a reason"), permissions=["handle"])
    def discard_chosen(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        wish = _wish(request)
        if not wish["reason"]:
            self.message_user(request, _("Enter a reason for discarding."), messages.ERROR)
            return
        done = self._report_refused(request, discard(ids_of(queryset), by=_who(request), **wish), str(_("Discarded")))
        self.message_user(request, ngettext("%d letter discarded.", "%d letters discarded.", done) % done)

    def _report_refused(self, request: HttpRequest, outcomes: Iterator[LetterResult], action: str) -> int:
        """Show the refusals, log the letters that were handled, and return how many they were."""
        done, refused = [], []
        try:
            for outcome in outcomes:
                if outcome.refusal:
                    refused.append(f"{outcome.letter_id}: {outcome.refusal}")
                else:
                    done.append(outcome.letter_id)
        except DeliveryError as error:
            text = _("Kafka did not accept every message; the remaining letters are still waiting. %(error)s")
            self.message_user(request, text % {"error": error}, messages.ERROR)
        for line in refused[:MOST_SHOWN]:
            self.message_user(request, line, messages.WARNING)
        if (more := len(refused) - MOST_SHOWN) > 0:
            self.message_user(request, _("%(more)d more were refused.") % {"more": more}, messages.WARNING)
        # The actions are the audit trail of the letter; this entry is for the history of the administrator.
        letters = DeadLetter.objects.filter(pk__in=done).defer("value", "headers")
        LogEntry.objects.log_actions(cast(int, request.user.pk), letters, CHANGE, action)
        return len(done)


def ids_of(queryset: QuerySet[DeadLetter]) -> list[int]:
    return list(queryset.order_by("pk").values_list("pk", flat=True))


def _who(request: HttpRequest) -> str:
    return request.user.get_username() + IN_THE_ADMIN


def _wish(request: HttpRequest) -> dict[str, Any]:
    return {"reason": request.POST.get("reason", "").strip()[:1000], "again": bool(request.POST.get("again"))}
