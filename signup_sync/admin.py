"""The page of the administration about the project's processes, which registers itself."""

from signup_sync.administration import instances_page  # noqa: F401
