"""The names that a new participant gets, and the reasons to refuse one."""

import re
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import yaml
from django.conf import settings

from signup_sync.configuration.settings_checks import TAKEN
from signup_sync.participants import package_of

# The name becomes part of a package, a database, its roles, a Kafka user, a host name and environment variables. With a
# longer one, lines of the generated files would be too long.
_NAME: Final = re.compile(r"[a-z][a-z0-9]{1,19}")
_RESERVED: Final = frozenset(
    {
        # YAML reads these as values.
        *("false", "no", "none", "null", "off", "on", "true", "yes"),
        # Django's alias of auth's database.
        "default",
        # PostgreSQL's own roles and databases, and a keyword that operators would have to quote.
        *("postgres", "public", "template0", "template1", "user"),
        # In a container, this is the container itself.
        "localhost",
    }
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
        raise RefusedNameError(f"{service!r} is not a service's name: use 2 to 20 lower-case letters and digits")
    if service in settings.EVENT_CONSUMERS or service in settings.SIGNUP_SERVICES:
        raise RefusedNameError(f"the service {service} exists already")
    if service in {*TAKEN, *_RESERVED, *_of_the_deployment(settings.BASE_DIR)}:
        raise RefusedNameError(f"the name {service} has another meaning here; choose another name")
    if find_spec(package_of(service)) is not None:
        raise RefusedNameError(f"the Python package {package_of(service)} exists already")


def check_text(name: str) -> None:
    """Raise RefusedNameError if this name can't stand in the catalogue and in pages."""
    if not name.isprintable() or name != name.strip() or not name or {*name} & {*'"\\%'}:
        raise RefusedNameError(
            f"{name!r} is empty, begins or ends with a space, or contains a quote, a backslash, a percent sign, a line "
            "break or an invisible character"
        )


def _of_the_deployment(root: Path) -> set[str]:
    """Return the services, networks and volumes of compose.yaml, and the users of Kafka and Redis."""
    compose = (root / "compose.yaml").read_text()
    read = yaml.safe_load(compose)
    return {
        *(name for section in ("services", "networks", "volumes") for name in read[section]),
        *re.findall(r"\buser_(\w+)=", compose),
        *tomllib.loads((root / "deploy/kafka-acls.toml").read_text()),
        *re.findall(r"^user (\w+)", (root / "deploy/redis-users.sh").read_text(), re.MULTILINE),
    }
