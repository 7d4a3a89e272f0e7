"""Replay out of the admin: as much as fits into one request, then a page that goes on by itself (docs/adr/0031)."""

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
from authsvc.models import SignUp
from authsvc.operations.timeline import replayed_to
from authsvc.signups.replay import PAGE, ReplayCounts, replay
from eventbus.producer import EventProducer
from runtime.security_log import log_security_event_of

# Seconds of one request: a page that answers so soon needs no patience, and no proxy's either.
WORKS_FOR: Final = 2.0


def services_to_ask() -> list[tuple[str, Any]]:
    """The choices of whom a replay asks; the empty one is every participant."""
    return [("", gettext_lazy("every service")), *((service, service) for service in participants())]


class ReplayForm(ActionForm):
    """What stands beside the choice of an action."""

    service = forms.ChoiceField(required=False, label=gettext_lazy("Services to ask:"), choices=services_to_ask)


class ProgressForm(forms.Form):
    """How far a replay of many has come: what its page posts to go on."""

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
    def read(cls, posted: QueryDict, chosen: QuerySet[SignUp]) -> Self:
        """Where the page left off; without that, the beginning. What begins meanwhile is not among them."""
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

    def rest_of(self, chosen: QuerySet[SignUp]) -> QuerySet[SignUp]:
        rest = chosen.filter(created_at__lt=self.until)
        return (rest.filter(id__gt=self.after) if self.after else rest).order_by("id")


def go_on(request: HttpRequest, chosen: QuerySet[SignUp], *, service: str | None) -> ReplayProgress | None:
    """Replays of `chosen` what WORKS_FOR allows and logs it; where it has come to, None at the end.

    At the end, which also comes when Kafka does not take the messages, the administrator is told.
    """
    progress = ReplayProgress.read(request.POST, chosen)
    end = time.monotonic() + WORKS_FOR
    producer = EventProducer()
    try:
        while ids := list(progress.rest_of(chosen).values_list("id", flat=True)[:PAGE]):
            # By id: a replay changes what the list's filter chose by.
            signups = SignUp.objects.filter(id__in=ids)
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


def _log(request: HttpRequest, signups: QuerySet[SignUp], *, service: str | None) -> None:
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
