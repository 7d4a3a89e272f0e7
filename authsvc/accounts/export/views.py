"""The page on which owners download everything that the services hold about them."""

import json
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from authsvc.accounts.export.collection import AlreadyCollectingError, BusyError, Export, collect
from authsvc.accounts.export.record_wording import record_in_words
from authsvc.accounts.forms import OwnerFormView, PasswordForm
from runtime.errors import is_transient
from runtime.light_wording import name_of
from runtime.security_log import log_security_event_of


class ExportView(OwnerFormView):
    """Show the data as a page or, with `format=json`, download them."""

    template_name = "authsvc/export.html"
    form_class = PasswordForm

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, title=gettext_lazy("Your data"))

    def form_valid(self, form: PasswordForm) -> HttpResponse:
        try:
            export = collect(self.user)
        except AlreadyCollectingError:
            words = _("Your data is being collected already. Wait until that is done, then try again.")
            return self._not_now(form, words, status=HTTPStatus.TOO_MANY_REQUESTS)
        except BusyError:
            return self._not_now(form, _("Other people are downloading their data right now. Try again in a moment."))
        except Exception as error:
            if not is_transient(error):
                raise
            return self._not_now(form, _("The services cannot be asked right now. Try again in a moment."))
        log_security_event_of(self.request, "data_exported")
        if self.request.POST.get("format") == "json":
            return _download(export)
        services = [
            (name_of(service), [record_in_words(record) for record in records])
            for service, records in export.records.items()
        ]
        silent = [name_of(service) for service in export.silent]
        return self.render_to_response(self.get_context_data(form=None, services=services, silent=silent))

    def _not_now(
        self, form: PasswordForm, words: str, *, status: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE
    ) -> HttpResponse:
        form.add_error(None, words)
        response = self.render_to_response(self.get_context_data(form=form), status=status)
        response["Retry-After"] = "5"
        return response


def _download(export: Export) -> HttpResponse:
    exported = timezone.now().isoformat(timespec="seconds")
    document = {"exported": exported, "services": export.records, "didNotAnswer": export.silent}
    text = json.dumps(document, ensure_ascii=False, indent=2)
    response = HttpResponse(text, content_type="application/json; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="signup-sync-data.json"'
    return response
