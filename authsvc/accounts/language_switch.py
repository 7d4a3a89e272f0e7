"""Forms that keep their input when the language of the page is switched."""

from typing import Any, cast

from django.forms import PasswordInput
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.generic import FormView

from runtime.language import in_other_language


class KeepsTyped(FormView):  # type: ignore[type-arg]  # has none at run time
    """The page's language buttons submit its form. The form comes back as typed, without errors, because it was not
    submitted for validation, and without passwords."""

    def post(self, request: HttpRequest, *args: str, **kwargs: Any) -> HttpResponse:
        if not self.is_switching:
            return super().post(request, *args, **kwargs)
        return in_other_language(request, lambda: cast(TemplateResponse, self.get(request, *args, **kwargs)).render())

    @property
    def is_switching(self) -> bool:
        return "language" in self.request.POST

    def get_form_kwargs(self) -> dict[str, Any]:
        kwargs = super().get_form_kwargs()
        if self.is_switching:
            del kwargs["data"], kwargs["files"]
            fields = self.get_form_class().base_fields
            names = [name for name, field in fields.items() if not isinstance(field.widget, PasswordInput)]
            kwargs["initial"] |= {name: self.request.POST.get(name, "") for name in names}
        return kwargs
