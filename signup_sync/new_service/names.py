"""The names that a new participant gets, and the reasons to refuse one."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from django.conf import settings

from signup_sync.configuration.settings_checks import TAKEN
from signup_sync.participants import package_of

# The name becomes part of a package, a database, its roles, a Kafka user, a host name and environment variables.
_NAME: Final = re.compile(r"[a-z][a-z0-9]{1,29}")
# YAML reads these as values, and Kafka or PostgreSQL has users of these names.
_RESERVED: Final = frozenset(
    {"admin", "default", "false", "no", "none", "null", "off", "on", "postgres", "true", "yes"}
)


class RefusedNameError(Exception):
    """The participant can't have this name; the text says why."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a participant's parts."""

    service: str

    @property
    def package(self) -> str:
        return package_of(self.service)

    @property
    def model(self) -> str:
        return f"{self.service.capitalize()}User"

    def in_template(self) -> dict[str, str]:
        return {
            "service": self.service,
            "Service": self.service.capitalize(),
            "SERVICE": self.service.upper(),
            "package": self.package,
            "model": self.model,
            "model_name": self.model.lower(),
        }


def check_name(service: str) -> None:
    """Raise RefusedNameError if no new participant can have this name."""
    if not _NAME.fullmatch(service):
        raise RefusedNameError(f"{service!r} is not a service's name: use 2 to 30 lower-case letters and digits")
    if service in settings.EVENT_CONSUMERS or service in settings.SIGNUP_SERVICES:
        raise RefusedNameError(f"the service {service} exists already")
    if service in {*TAKEN, *_RESERVED}:
        raise RefusedNameError(f"the name {service} has another meaning here")
    if find_spec(package_of(service)) is not None:
        raise RefusedNameError(f"the Python package {package_of(service)} exists already")
