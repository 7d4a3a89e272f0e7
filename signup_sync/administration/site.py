"""The project's admin site: models grouped by task, items that need attention first, and explained refusals."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.models import AnonymousUser, Group
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from structlog.contextvars import bound_contextvars

from authsvc.accounts.admin_sessions import may_still_administer, note_use
from authsvc.accounts.forms import AdminLoginForm
from authsvc.accounts.logout import LogoutView
from authsvc.accounts.two_factor.login import TwoStepLoginView, with_next
from authsvc.accounts.two_factor.rules import may_administer, must_set_up
from authsvc.models import EventTransaction, TrafficMinute, UnconfirmedSignUp, User
from authsvc.operations.signup_filters import REFUSED
from eventbus.inspection.attendance import attendance
from eventbus.models import DeadLetter, Instance, Topic
from livesettings.models import Overrides
from participant.models import ParticipantUser
from runtime.admin_toolkit.delete_action import delete_selected
from runtime.admin_toolkit.restricted_admin import RestrictedAdmin
from runtime.security_log import address_of
from scimsvc.models import ScimAccount

# Groups on the index and in the navigation. Models in none of these are listed below them, by app.
GROUPS: Final[tuple[tuple[Any, tuple[type[Model], ...]], ...]] = (
    (gettext_lazy("Sign-ups"), (EventTransaction, UnconfirmedSignUp, DeadLetter)),
    (gettext_lazy("Accounts"), (User, Group)),
    (gettext_lazy("Copies at the services"), (ParticipantUser, ScimAccount)),
    (gettext_lazy("Operation"), (TrafficMinute, Topic, Instance, Overrides)),
)
# A sign-up that is pending for longer than OVERDUE needs attention; a refused one does for the time of NEWS.
OVERDUE: Final = timedelta(minutes=10)
NEWS: Final = timedelta(days=1)


class Administration(AdminSite):
    site_header = site_title = "Signup Sync"
    index_title = gettext_lazy("Administration")
    login_form = AdminLoginForm

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        self.add_action(delete_selected)

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Register the models. Every admin class, including those of libraries, gets the rules of RestrictedAdmin
        (docs/adr/0041)."""
        chosen = admin_class or ModelAdmin
        if not issubclass(chosen, RestrictedAdmin):
            chosen = type(chosen.__name__, (RestrictedAdmin, chosen), {"__module__": chosen.__module__})
        super().register(model_or_iterable, chosen, **options)

    def get_urls(self) -> list[Any]:
        """Remove Django's `view_on_site` redirect: it reveals to all staff which objects exist, and no model here has a
        public page."""
        return [each for each in super().get_urls() if getattr(each, "name", None) != "view_on_site"]

    def has_permission(self, request: HttpRequest) -> bool:
        return may_administer(request.user) and may_still_administer(request.session)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Log in with the second step, which Django's login, with its fixed view, lacks. Staff who need a second factor
        and have none are redirected to the page where they set it up."""
        index = reverse("admin:index", current_app=self.name)
        if must_set_up(request.user):
            return HttpResponseRedirect(with_next(reverse("two_factor"), request.GET.get(REDIRECT_FIELD_NAME, index)))
        if request.method == "GET" and self.has_permission(request):
            return HttpResponseRedirect(index)
        if request.method == "GET" and may_administer(request.user):
            messages.warning(request, _("You logged in some time ago. Log in again to continue in the administration."))
            # Otherwise the page would say that this user is not authorised to see the requested page.
            extra_context = {"user": AnonymousUser(), **(extra_context or {})}
        context = {
            **self.each_context(request),
            "title": _("Log in"),
            "subtitle": None,
            "app_path": request.get_full_path(),
            "username": request.user.get_username(),
        }
        if REDIRECT_FIELD_NAME not in request.GET and REDIRECT_FIELD_NAME not in request.POST:
            context[REDIRECT_FIELD_NAME] = index
        view = TwoStepLoginView.as_view(
            extra_context=context | (extra_context or {}),
            authentication_form=self.login_form,
            template_name="admin/login.html",
        )
        request.current_app = self.name
        return view(request)

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Use the account's logout, which also clears the lights that the browser keeps."""
        return LogoutView.as_view()(request)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Redirect to the account's page, which limits wrong passwords and logs the change; Django's does neither."""
        return HttpResponseRedirect(reverse("password_change"))

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps = super().get_app_list(request, app_label)
        if app_label is not None:
            return apps
        grouped = []
        left = [(app, model) for app in apps for model in app["models"]]
        for title, kinds in GROUPS:
            members = [(app, model) for kind in kinds for app, model in left if issubclass(model["model"], kind)]
            left = [each for each in left if each not in members]
            if models := [model for _app, model in members]:
                grouped.append({**members[0][0], "name": title, "app_url": models[0]["admin_url"], "models": models})
        for app in apps:
            if rest := [model for of, model in left if of is app]:
                grouped.append({**app, "models": rest})
        return grouped

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return super().index(request, {**(extra_context or {}), "attention": attention(request)})

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        guarded: Callable[..., HttpResponse] = super().admin_view(view, cacheable)

        @wraps(guarded)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if self.has_permission(request):
                note_use(request)
            try:
                with bound_contextvars(address=address_of(request)):
                    return guarded(request, *args, **kwargs)
            except PermissionDenied as refusal:
                return self._refuse(request, refusal)

        return answer

    def _refuse(self, request: HttpRequest, refusal: PermissionDenied) -> HttpResponse:
        why = str(refusal) or _("You do not have permission to view or do this.")
        context = {**self.each_context(request), "title": _("Not permitted"), "why": why}
        return TemplateResponse(request, "admin/refused.html", context, status=403)


def attention(request: HttpRequest) -> list[dict[str, str]]:
    """Return the items that need attention and that this user may see, as {words, count, url}."""
    found: list[tuple[str, QuerySet[Any], str]] = []
    if request.user.has_perm("authsvc.view_signup"):
        signups = reverse("admin:authsvc_eventtransaction_changelist")
        pending = EventTransaction.objects.filter(pending_count__gt=0, created_at__lt=timezone.now() - OVERDUE)
        stalled = EventTransaction.objects.filter(stalled_at__isnull=False)
        # A red light is final, so it is listed only for a day.
        refused = EventTransaction.objects.filter(REFUSED, created_at__gte=timezone.now() - NEWS)
        found += [
            (_("Stalled: all attempts used up"), stalled, f"{signups}?lights=stalled"),
            (_("Pending for more than 10 minutes"), pending, f"{signups}?lights=pending&begun=older10m"),
            (_("Refused by a service in the last 24 hours"), refused, f"{signups}?lights=red&begun=1d"),
        ]
    if request.user.has_perm("eventbus.view_deadletter"):
        letters = reverse("admin:eventbus_deadletter_changelist")
        waiting = DeadLetter.objects.filter(state=DeadLetter.State.WAITING)
        found.append((_("Dead letters waiting"), waiting, f"{letters}?state__exact=waiting"))
    counted = [(words, rows.count(), url) for words, rows, url in found]
    items = [
        {"words": words, "count": number_format(count, force_grouping=True), "url": url}
        for words, count, url in counted
        if count
    ]
    return absent_services(request) + items


def absent_services(request: HttpRequest) -> list[dict[str, str]]:
    """Return an item if services of SIGNUP_SERVICES have no running consumer. The answer is cached, so no server is
    asked here (eventbus.inspection.attendance)."""
    absent = attendance.absent
    if not absent or not request.user.has_perm("eventbus.view_instance"):
        return []
    words = _("Services without a running process, whose lights stay orange: %(services)s") % {
        "services": ", ".join(absent)
    }
    return [{"words": words, "count": str(len(absent)), "url": reverse("admin:eventbus_instance_changelist")}]
