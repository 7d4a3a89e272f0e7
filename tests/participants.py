"""The models of the project's participants, for tests in a process with the settings."""

from collections.abc import Mapping

from django.apps import apps

from participant.models import ParticipantUser
from signup_sync.participants import PACKAGES


def _model_of(package: str) -> type[ParticipantUser]:
    [model] = [each for each in apps.get_app_config(package).get_models() if issubclass(each, ParticipantUser)]
    return model


MODELS: Mapping[str, type[ParticipantUser]] = {service: _model_of(package) for service, package in PACKAGES.items()}
# The paths of their lists under /admin/, such as chatsvc/chatuser.
ADMIN_PATHS: Mapping[str, str] = {
    service: f"{model._meta.app_label}/{model._meta.model_name}" for service, model in MODELS.items()
}
