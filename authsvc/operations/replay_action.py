"""Replay from the admin: as much as fits into one request, then a page that continues automatically (docs/adr/0031)."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self, cast
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from authsvc.lights import participants
from authsvc.models import EventTransaction
from authsvc.operations.timeline import replayed_to
from authsvc.signups.replay import PAGE, ReplayCounts, replay
from eventbus.producer import EventProducer
from runtime.security_log import log_security_event_of

# Seconds of work per request: short enough for people and for proxy timeouts.
WORKS_FOR: Final = 2.0


def services_to_ask() -> list[tuple[str, Any]]:
    """Return the choices of services to replay to; the empty value means every participant."""
    return [("", gettext_lazy("every service")), *((service, service) for service in participants())]


class ReplayForm(ActionForm):
    """The service field beside the action menu."""

    service = forms.ChoiceField(required=False, label=gettext_lazy("Services to ask:"), choices=services_to_ask)


class ProgressForm(forms.Form):
    """Progress of a long replay, as its page posts it to continue."""

    total = forms.IntegerField(min_value=0)
    sent = forms.IntegerField(min_value=0)
    skipped = forms.IntegerField(min_value=0)
    after = forms.UUIDField()
    until = forms.DateTimeField()


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """A replay of `total` sign-ups begun before `until`, in the order of their ids; those up to `after` are done."""

    total: int
    until: datetime
    after: UUID | None = None
    counts: ReplayCounts = field(default_factory=ReplayCounts)

    @classmethod
    def read(cls, posted: QueryDict, chosen: QuerySet[EventTransaction]) -> Self:
        """Return the posted progress, or a new one. Sign-ups that start later are not included."""
        form = ProgressForm(posted)
        if form.is_valid():
            said = form.cleaned_data
            counts = ReplayCounts(said["sent"], said["skipped"])
            return cls(said["total"], said["until"], said["after"], counts)
        until = timezone.now()
        return cls(chosen.filter(created_at__lt=until).count(), until)

    @property
    def done(self) -> int:
        return self.counts.sent + self.counts.skipped + self.counts.failed

    def rest_of(self, chosen: QuerySet[EventTransaction]) -> QuerySet[EventTransaction]:
        rest = chosen.filter(created_at__lt=self.until)
        return (rest.filter(id__gt=self.after) if self.after else rest).order_by("id")


def go_on(request: HttpRequest, chosen: QuerySet[EventTransaction], *, service: str | None) -> ReplayProgress | None:
    """Replay and log as many of `chosen` as WORKS_FOR allows. Return the progress, or None at the end.

    The replay also ends when Kafka does not accept the messages. At the end the administrator gets a message.
    """
    progress = ReplayProgress.read(request.POST, chosen)
    end = time.monotonic() + WORKS_FOR
    producer = EventProducer()
    try:
        while ids := list(progress.rest_of(chosen).values_list("id", flat=True)[:PAGE]):
            # Select by id: a replay changes the fields that the list is filtered by.
            signups = EventTransaction.objects.filter(id__in=ids)
            log_security_event_of(request, "replay", detail=f"{len(ids)} sign-ups, {service or 'every service'}")
            counts = sum(replay(signups, producer=producer, service=service), progress.counts)
            _log(request, signups, service=service)
            progress = ReplayProgress(progress.total, progress.until, ids[-1], counts)
            if counts.failed:
                break
            if time.monotonic() > end and progress.rest_of(chosen).exists():
                return progress
    finally:
        producer.close(timeout=5)
    _tell(request, progress)
    return None


def _log(request: HttpRequest, signups: QuerySet[EventTransaction], *, service: str | None) -> None:
    entries = signups.only("id", "user_id")
    LogEntry.objects.log_actions(cast(int, request.user.pk), entries, CHANGE, replayed_to(service))


def _tell(request: HttpRequest, progress: ReplayProgress) -> None:
    counts = progress.counts
    said = ngettext("%(sent)d sign-up sent again", "%(sent)d sign-ups sent again", counts.sent) % {"sent": counts.sent}
    said += _(", %(skipped)d skipped, %(failed)d failed.") % {"skipped": counts.skipped, "failed": counts.failed}
    if counts.failed and (left := progress.total - progress.done) > 0:
        said += " " + _("%(left)d were not attempted.") % {"left": left}
    if counts.failed:
        said += " " + _("Check that Kafka is running, then replay them again; sending an event twice changes nothing.")
    messages.add_message(request, messages.ERROR if counts.failed else messages.SUCCESS, said)
