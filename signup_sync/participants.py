"""The participants of this installation: each service other than auth that stores its own copy of the users.

A service `chat` has the package `chatsvc`, the database alias `chat` and the setting `CHAT_DATABASE_URL`; the settings
derive everything else from this list. `manage.py startservice` and `manage.py removeservice` edit it.
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
