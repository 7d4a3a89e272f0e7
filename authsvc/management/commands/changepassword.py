"""`manage.py changepassword`: Django's command, which also logs a security event."""

from typing import Any

from django.contrib.auth.management.commands import changepassword

from runtime.security_log import log_security_event, operator


class Command(changepassword.Command):
    def handle(self, *args: Any, **options: Any) -> str | None:
        said = super().handle(*args, **options)
        log_security_event("password_changed", actor=operator(), subject=options.get("username"))
        return said
