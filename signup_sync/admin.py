"""Django imports this module to register the admin page of the running processes."""

from signup_sync.administration import instances_page  # noqa: F401
