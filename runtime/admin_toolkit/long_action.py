"""Admin actions on any number of rows: each request works for a bounded time, and a page posts the action again until
no row is left (docs/adr/0031)."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from django import forms
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import PAGE_VAR
from django.core import signing
from django.core.exceptions import BadRequest
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from runtime.admin_toolkit.model_admin import ModelAdmin

# Seconds of work per request: short enough for people and for proxy timeouts.
WORKS_FOR: Final = 2.0
# The name of the form's field with the signed progress.
FIELD: Final = "progress"
# The action ends after a step that counts any row under this name.
FAILED: Final = "failed"

Step = Callable[[Sequence[Any]], Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """An action on `total` rows in the order of their primary keys; those up to `after` are done, and counted by their
    outcome. `until` is the highest value of the field `bound` at the beginning: later rows are not included.
    `digest` identifies the rows that the confirmation page showed; it is empty if the action has no such page."""

    total: int
    bound: str
    until: str
    digest: str = ""
    after: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    is_ended: bool = False

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def rest_of(self, chosen: QuerySet[Any]) -> QuerySet[Any]:
        rest = chosen.filter(**{f"{self.bound}__lte": self.until}) if self.until else chosen.none()
        return (rest.filter(pk__gt=self.after) if self.after else rest).order_by("pk")

    def signed(self, request: HttpRequest) -> str:
        content = [self.total, self.bound, self.until, self.digest, self.after, dict(self.counts)]
        return signing.dumps(content, salt=_salt(request))


def progress_of(request: HttpRequest, chosen: QuerySet[Any], *, bound: str = "pk") -> Progress:
    """Return the posted progress of this action on this list, or that of an action that begins now. `bound` names a
    field that increases from row to row."""
    if not (posted := request.POST.get(FIELD)):
        return new_progress(chosen, bound=bound)
    try:
        total, bound, until, digest, after, counts = signing.loads(posted, salt=_salt(request))
    except (signing.BadSignature, ValueError):
        # ValueError: a form of another release.
        raise BadRequest("the progress of the action is not one of this list") from None
    return Progress(total=total, bound=bound, until=until, digest=digest, after=after, counts=counts)


def new_progress(chosen: QuerySet[Any], *, bound: str = "pk") -> Progress:
    newest = chosen.aggregate(newest=Max(bound))["newest"]
    return Progress(total=chosen.count(), bound=bound, until="" if newest is None else str(newest))


def count_and_digest(rows: QuerySet[Any]) -> tuple[int, str]:
    """Return the number of rows, and a digest of their primary keys in this order, which also changes when one row
    takes the place of another. A million rows take about a second."""
    hashed, count = hashlib.sha256(), 0
    for key in rows.values_list("pk", flat=True).iterator(chunk_size=10_000):
        hashed.update(f"{key}\n".encode())
        count += 1
    return count, hashed.hexdigest()


def work_on(progress: Progress, chosen: QuerySet[Any], step: Step, *, rows: int) -> Progress:
    """Call `step` with at most that many primary keys at a time until WORKS_FOR has passed. It returns how many rows
    had which outcome. The result is ended if no row is left or a row has failed."""
    end = time.monotonic() + WORKS_FOR
    while True:
        keys = list(progress.rest_of(chosen).values_list("pk", flat=True)[: rows + 1])
        if now := keys[:rows]:
            counts = step(now)
            progress = replace(progress, after=str(now[-1]), counts=Counter(progress.counts) + Counter(counts))
        if len(keys) <= rows or progress.counts.get(FAILED):
            return replace(progress, is_ended=True)
        if time.monotonic() > end:
            return progress


def form_context(request: HttpRequest, progress: Progress, *, carried: Sequence[str] = ()) -> dict[str, Any]:
    """Return what a template needs for a form that posts the action again. The fields of `hidden` are the same rows,
    the progress, and the `carried` fields as they were posted. `list_query` is the list's query without the number of
    the page: Django refuses a page that no longer exists, and the action may remove the rows of the last ones."""
    names = ("action", "select_across", ACTION_CHECKBOX_NAME, *carried)
    posted = [(name, value) for name in names for value in request.POST.getlist(name)]
    query = request.GET.copy()
    query.pop(PAGE_VAR, None)
    return {"hidden": [*posted, (FIELD, progress.signed(request))], "list_query": f"?{query.urlencode()}"}


def progress_page(
    model_admin: ModelAdmin, request: HttpRequest, progress: Progress, title: str, *, carried: Sequence[str] = ()
) -> HttpResponse:
    """Return the page that shows the progress and posts the action again, automatically if scripts run."""
    context = {**model_admin.admin_site.each_context(request), "opts": model_admin.opts, "title": title}
    context |= form_context(request, progress, carried=carried)
    context |= {"progress": progress, "media": forms.Media(js=["admin/long_action.js"])}
    return TemplateResponse(request, "admin/long_action.html", context)


def _salt(request: HttpRequest) -> str:
    return f"admin-action {request.path} {request.POST.get('action')}"
