"""Restrictions for every admin class, including those of libraries (docs/adr/0041)."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

from django.contrib.admin.filters import FieldListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from runtime.admin_toolkit.model_admin import ModelAdmin
from runtime.security_log import log_security_event_of


class RestrictedAdmin(ModelAdmin):
    """Restrict list lookups to those that the filters offer, and the fields in `privileges` to superusers.

    Granted privileges are logged. The admin site mixes this class into every class that is registered without it.
    """

    # Names of form fields that grant privileges.
    privileges: ClassVar[Sequence[str]] = ()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow only lookups of the filters. Django allows any field of the model, such as a password hash's prefix."""
        return lookup in self._lookups_of_filters(request)

    def deletable(self, request: HttpRequest, chosen: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that "Delete selected" deletes. `left_out` says why it leaves out the others."""
        return chosen

    def left_out(self, request: HttpRequest, chosen: QuerySet[Any]) -> str:
        """Return why "Delete selected" leaves out some of these rows, or an empty text."""
        return ""

    def deletion_refusal(self, request: HttpRequest, rows: QuerySet[Any]) -> str:
        """Return why this user may not delete some of these rows, or an empty text."""
        return ""

    def after_deletion(self, request: HttpRequest) -> str:
        """Return what to tell the user after "Delete selected" besides the number of rows, or an empty text."""
        return ""

    def _lookups_of_filters(self, request: HttpRequest) -> Iterator[str]:
        filters: Sequence[Any] = self.get_list_filter(request)
        for each in filters:
            if callable(each):
                yield getattr(each, "parameter_name", "")
                continue
            path, make = each if isinstance(each, (list, tuple)) else (each, FieldListFilter.create)
            field = get_fields_from_path(self.model, path)[-1]
            yield from make(field, request, {}, self.model, self, field_path=path).expected_parameters()

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        try:
            return super().get_changelist_instance(request)
        except OverflowError as error:
            # A date at the limits of datetime overflows when it is converted to another time zone.
            raise IncorrectLookupParameters(error) from error

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if request.user.is_superuser else (*fields, *self.privileges)

    def forbidden_privileges(self, request: HttpRequest) -> list[str]:
        """Return the names of submitted privilege fields that the sender may not set."""
        if request.user.is_superuser:
            return []
        return [name for name in self.privileges if name in request.POST]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method == "POST" and (names := self.forbidden_privileges(request)):
            self.refuse_privileges(request, subject=f"{self.opts.label} {object_id or 'new'}", names=names)
        return super().changeform_view(request, object_id, form_url, extra_context)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not (granted := [each for name in form.changed_data for each in self.grants_of(form, name)]):
            return
        log = partial(
            log_security_event_of,
            request,
            "privilege_granted",
            subject=str(form.instance),
            detail=", ".join(granted),
        )
        # Log after the commit, because a transaction that fails grants nothing.
        transaction.on_commit(log, using=form.instance._state.db)

    def grants_of(self, form: Any, name: str) -> Iterable[str]:
        """Return descriptions, for the log, of the privileges that a changed field newly grants."""
        if name not in self.privileges:
            return []
        value = form.cleaned_data[name]
        if isinstance(value, bool):
            return [name] if value else []
        if isinstance(value, str):
            field: Any = self.opts.get_field(name)
            return [f"{name}: {value}"] if value != field.get_default() else []
        before = form.initial.get(name) or ()
        return [f"{name}: {_name_of(each)}" for each in value if each not in before]

    def refuse_privileges(self, request: HttpRequest, *, subject: str, names: Sequence[str]) -> None:
        """Log and raise PermissionDenied. The page has no such fields, so the request was crafted by hand."""
        log_security_event_of(request, "privilege_refused", subject=subject, detail=", ".join(names))
        words = _("You do not have permission to set this: %(fields)s. Nothing was changed.")
        raise PermissionDenied(words % {"fields": ", ".join(names)})


def _name_of(granted: Model) -> str:
    if isinstance(granted, Permission):
        return f"{granted.content_type.app_label}.{granted.codename}"
    return str(granted)
