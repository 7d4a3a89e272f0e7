"""The admin's action that deletes chosen rows, of any number (docs/adr/0031).

Django's lists each row and everything that refers to it on one page, repeats each key in a form that may hold 1,000
fields, and deletes them all in one request.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from runtime.admin_toolkit.long_action import (
    Progress,
    count_and_digest,
    form_context,
    new_progress,
    progress_of,
    progress_page,
    work_on,
)

# Rows per step. Removing an account takes about 10 ms.
ROWS: Final = 50
# Rows that the question names; the others are only counted.
NAMED: Final = 10
DELETED: Final = "deleted"
TEMPLATE: Final = "admin/delete_selected_confirmation.html"


@admin.action(permissions=["delete"], description=gettext_lazy("Delete selected %(verbose_name_plural)s"))
def delete_selected(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
    """Ask first. Then delete for a bounded time, and return a page that goes on, or None at the end.

    `model_admin` is a RestrictedAdmin, as every admin class of the site is."""
    chosen = model_admin.deletable(request, queryset)
    progress = progress_of(request, chosen)
    is_confirmed = bool(request.POST.get("post"))
    if is_confirmed and not progress.after and has_changed(progress, chosen):
        is_confirmed = False
        progress = new_progress(chosen)
        words = _("The selection has changed since you were asked. Nothing has been deleted yet.")
        model_admin.message_user(request, words, messages.WARNING)
    refuse_forbidden(model_admin, request, progress, chosen)
    if not progress.total:
        reason = model_admin.left_out(request, queryset) or _("The selected rows no longer exist.")
        model_admin.message_user(request, _("Nothing was deleted.") + f" {reason}", messages.WARNING)
        return None
    if not is_confirmed:
        return question(model_admin, request, progress, chosen)

    def delete(keys: Sequence[Any]) -> dict[str, int]:
        rows = model_admin.get_queryset(request).filter(pk__in=keys)
        model_admin.log_deletions(request, rows)
        model_admin.delete_queryset(request, rows)
        return {DELETED: len(keys)}

    progress = work_on(progress, chosen, delete, rows=ROWS)
    if not progress.is_ended:
        return progress_page(model_admin, request, progress, _("Delete multiple objects"), carried=["post"])
    words = _("Successfully deleted %(count)d %(items)s.")
    count = progress.counts.get(DELETED, 0)
    model_admin.message_user(
        request, words % {"count": count, "items": model_ngettext(model_admin.opts, count)}, messages.SUCCESS
    )
    if words := model_admin.after_deletion(request):
        model_admin.message_user(request, words, messages.INFO)
    return None


def has_changed(progress: Progress, chosen: QuerySet[Any]) -> bool:
    """Return whether the selection is no longer the one that the question was about. Scripts may post without one."""
    return bool(progress.digest) and count_and_digest(progress.rest_of(chosen)) != (progress.total, progress.digest)


def question(model_admin: Any, request: HttpRequest, progress: Progress, chosen: QuerySet[Any]) -> HttpResponse:
    # Before the rows are named: if they change in between, the answer is refused.
    total, digest = count_and_digest(progress.rest_of(chosen))
    progress = replace(progress, total=total, digest=digest)
    context = {
        **model_admin.admin_site.each_context(request),
        **form_context(request, progress),
        "title": _("Delete multiple objects"),
        "opts": model_admin.opts,
        "named": progress.rest_of(chosen)[:NAMED],
        "more": max(progress.total - NAMED, 0),
        "count": progress.total,
        "items": model_ngettext(model_admin.opts, progress.total),
    }
    return TemplateResponse(request, model_admin.delete_selected_confirmation_template or TEMPLATE, context)


def refuse_forbidden(model_admin: Any, request: HttpRequest, progress: Progress, chosen: QuerySet[Any]) -> None:
    """Raise PermissionDenied if this user may not delete some of the rows that are left, and say what was deleted."""
    if not (reason := model_admin.deletion_refusal(request, progress.rest_of(chosen))):
        return
    effect = _("Nothing was changed.")
    if count := progress.counts.get(DELETED, 0):
        words = _("The action stopped after it had deleted %(count)d %(items)s.")
        effect = words % {"count": count, "items": model_ngettext(model_admin.opts, count)}
    raise PermissionDenied(f"{reason} {effect}")
