"""Replay from the admin: as much as fits into one request, then a page that continues automatically (docs/adr/0031)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from authsvc.lights import participants
from authsvc.models import DATABASE, EventTransaction
from authsvc.operations.timeline import replayed_to
from authsvc.signups import publisher
from authsvc.signups.replay import PAGE, ReplayCounts, replay
from runtime.admin_toolkit.long_action import Progress, progress_of, progress_page, work_on
from runtime.admin_toolkit.model_admin import ModelAdmin
from runtime.security_log import log_security_event_of


def services_to_ask() -> list[tuple[str, Any]]:
    """Return the choices of services to replay to; the empty value means every participant."""
    return [("", gettext_lazy("every service")), *((service, service) for service in participants())]


class ReplayForm(ActionForm):
    """The service field beside the action menu."""

    service = forms.ChoiceField(required=False, label=gettext_lazy("Services to ask:"), choices=services_to_ask)


def replay_chosen(
    model_admin: ModelAdmin, request: HttpRequest, chosen: QuerySet[EventTransaction]
) -> HttpResponse | None:
    """Replay and log for a bounded time, and return a page that goes on, or None at the end.

    The replay also ends when Kafka does not accept the messages. At the end the administrator gets a message.
    """
    service = request.POST.get("service") or None

    def ask_again(ids: Sequence[Any]) -> dict[str, int]:
        # Select by id: a replay changes the fields that the list is filtered by.
        signups = EventTransaction.objects.filter(id__in=ids)
        log_security_event_of(request, "replay", detail=f"{len(ids)} sign-ups, {service or 'every service'}")
        counts = sum(replay(signups, producer=publisher.producer(), service=service), ReplayCounts())
        # In one transaction: a removal that comes next then finds the log's entries, and erases their user IDs.
        with transaction.atomic(using=DATABASE):
            entries = signups.select_for_update().only("id", "user_id").order_by("id")
            LogEntry.objects.log_actions(cast(int, request.user.pk), entries, CHANGE, replayed_to(service))
        return asdict(counts)

    # Sign-up IDs are chosen by clients, so the time at which sign-ups began tells which of them are later ones.
    progress = work_on(progress_of(request, chosen, bound="created_at"), chosen, ask_again, rows=PAGE)
    if not progress.is_ended:
        return progress_page(model_admin, request, progress, _("Replay"), carried=["service"])
    _report(request, progress)
    return None


def _report(request: HttpRequest, progress: Progress) -> None:
    counts = ReplayCounts(**progress.counts)
    said = ngettext("%(sent)d sign-up sent again", "%(sent)d sign-ups sent again", counts.sent) % {"sent": counts.sent}
    said += _(", %(skipped)d skipped, %(failed)d failed.") % {"skipped": counts.skipped, "failed": counts.failed}
    if counts.skipped:
        said += " " + _("Skipped means that the account no longer exists.")
    if counts.failed and (left := progress.total - progress.done) > 0:
        said += " " + _("%(left)d were not attempted.") % {"left": left}
    if counts.failed:
        said += " " + _("Check that Kafka is running, then replay them again; sending an event twice changes nothing.")
    messages.add_message(request, messages.ERROR if counts.failed else messages.SUCCESS, said)
