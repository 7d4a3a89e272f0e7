"""Filters of the administrator's list of sign-ups."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from authsvc.lights import REMOVED_REASON
from authsvc.models import EventTransaction

# Number of failure groups offered, largest first, and characters shown of each.
GROUPS_SHOWN: Final = 30
GROUP_SHOWN: Final = 80
# One line of EventTransaction.failures about a light that the account's removal turned red: no service refused it.
_REMOVED: Final = rf"[^:\n]+: {REMOVED_REASON}"
# The rows that a service refused.
REFUSED: Final = Q(failed_count__gt=0) & ~Q(failures__regex=rf"^{_REMOVED}(\n{_REMOVED})*$")


class LightsFilter(admin.SimpleListFilter):
    title = _("lights")
    parameter_name = "lights"

    # The words and the rows of each choice.
    _CHOICES: ClassVar[dict[str, tuple[Any, Q]]] = {
        "pending": (_("Pending: a service has not answered"), Q(pending_count__gt=0)),
        "red": (_("Red: a service refused"), REFUSED),
        "complete": (_("Complete: every service has answered"), Q(pending_count=0)),
        "stalled": (_("Stalled: all attempts used up"), Q(stalled_at__isnull=False)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(value, words) for value, (words, _rows) in self._CHOICES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[EventTransaction]) -> QuerySet[EventTransaction]:
        chosen = self._CHOICES.get(self.value() or "")
        return queryset.filter(chosen[1]) if chosen else queryset


class BegunFilter(admin.SimpleListFilter):
    """Filter by start time, down to minutes: pending for minutes is normal, pending since last week is a problem."""

    title = _("start time")
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

    def queryset(self, request: HttpRequest, queryset: QuerySet[EventTransaction]) -> QuerySet[EventTransaction]:
        if self.value() == "older10m":
            return queryset.filter(created_at__lt=timezone.now() - timedelta(minutes=10))
        if span := self._SPANS.get(self.value() or ""):
            return queryset.filter(created_at__gte=timezone.now() - span)
        return queryset


class FailureGroupFilter(admin.SimpleListFilter):
    """Group failures by service and reason, with counts (docs/adr/0030). A sign-up that failed at two services is in
    two groups."""

    title = _("failure group")
    parameter_name = "failure"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        groups = Counter[str]()
        for failures, count in self._combinations():
            groups.update(dict.fromkeys(failures.splitlines(), count))
        return [
            (group, f"{Truncator(group).chars(GROUP_SHOWN)} ({number_format(count, force_grouping=True)})")
            for group, count in groups.most_common(GROUPS_SHOWN)
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[EventTransaction]) -> QuerySet[EventTransaction]:
        if (group := self.value()) is None:
            return queryset
        alike = [failures for failures, _count in self._combinations() if group in failures.splitlines()]
        return queryset.filter(failed_count__gt=0, failures__in=alike)

    def _combinations(self) -> Sequence[tuple[str, int]]:
        """Return each combination of failures with its count."""
        red = EventTransaction.objects.filter(failed_count__gt=0).order_by()
        return list(red.values_list("failures").annotate(Count("pk")))
