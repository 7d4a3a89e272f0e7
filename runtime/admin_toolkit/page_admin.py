"""Admin pages that are not lists of rows. Each is registered for a model, which provides its permission and its entry
in the index."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe

from runtime.admin_toolkit.read_only_admin import ReadOnlyAdmin


class PageAdmin(ReadOnlyAdmin):
    """An admin that shows `page()` in place of the list."""

    def page(self, request: HttpRequest) -> HttpResponse:
        raise NotImplementedError

    def more_urls(self) -> list[URLPattern]:
        """Return the URLs below the page."""
        return []

    def get_urls(self) -> list[URLPattern]:
        list_name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.changelist_view), name=list_name), *self.more_urls()]

    @method_decorator(require_safe)
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self.require_permission(request)
        return self.page(request)

    def require_permission(self, request: HttpRequest) -> None:
        """Raise PermissionDenied for staff without this page's permission."""
        if not self.has_view_permission(request):
            raise PermissionDenied

    def render(
        self, request: HttpRequest, template: str, title: str, context: dict[str, Any], *, status: int = 200
    ) -> HttpResponse:
        """Render the template within the admin's layout."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, template, frame | context, status=status)
