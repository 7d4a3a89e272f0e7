"""The connection of a handler to its SCIM server."""

from functools import cached_property
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from scimsvc.provisioning import Provisioning


class Connection:
    """A handler's client of its SCIM server. Processes that only inspect subscriptions don't load one."""

    def __init__(self, service: str) -> None:
        self.service = service

    @cached_property
    def provisioning(self) -> "Provisioning":
        """Raises ImproperlyConfigured if this process lacks the server's token."""
        if self.service not in settings.SCIM_TOKENS:
            raise ImproperlyConfigured(f"SCIM_TOKENS has no token for {self.service}: add {self.service}=<token>.")
        # Imported here, because web processes import the handlers, and httpx2 and pydantic take seconds and 35 MB.
        from scimsvc.provisioning import Provisioning
        from scimsvc.server import ScimServer

        server = ScimServer(settings.SCIM_SERVERS[self.service], settings.SCIM_TOKENS[self.service])
        return Provisioning(self.service, server)

    def prepare(self) -> None:
        """Load the client now, so that the first user needn't wait for it. Raises the error of `provisioning`."""
        _ = self.provisioning
