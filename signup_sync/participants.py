"""The participants of this installation: each service other than auth that stores its own copy of the users.

The package of a service is its name with the suffix `svc`, its database's alias is its name, and the setting of its
database is <NAME>_DATABASE_URL; signup_sync.settings derives the rest from this list. `manage.py startservice` and
`manage.py removeservice` edit it.
"""

from collections.abc import Mapping
from typing import Final

# In the order of their lights. Each has a line of its own.
PARTICIPANTS: Final[tuple[str, ...]] = (
    "chat",
    "customer",
)


def package_of(service: str) -> str:
    return f"{service}svc"


# The package, which is also the app label, of each participant.
PACKAGES: Final[Mapping[str, str]] = {service: package_of(service) for service in PARTICIPANTS}
