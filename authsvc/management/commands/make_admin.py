"""`manage.py make_admin`: create an administrator from terminal prompts or the environment.

It checks no permission: running it already takes the installation's database password (docs/adr/0041).
"""

import os
import sys
from getpass import getpass
from typing import Any, Final

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from authsvc.models import User
from runtime.security_log import log_security_event, operator

# Model field, prompt, and the environment variable that replaces the prompt.
PROMPTS: Final = (
    ("user_id", "User ID", "ADMIN_USER_ID"),
    ("email", "Email address", "ADMIN_EMAIL"),
    ("password", "Password", "ADMIN_PASSWORD"),
)


class Command(BaseCommand):
    help = (
        "Create an administrator. The command reads ADMIN_USER_ID, ADMIN_EMAIL and ADMIN_PASSWORD from the "
        "environment, and prompts for those that are not set. The exit code is 1 if none was created."
    )

    def handle(self, **options: Any) -> None:
        missing = [variable for _, _, variable in PROMPTS if not os.environ.get(variable)]
        if missing and not sys.stdin.isatty():
            raise CommandError(f"There is no terminal to ask at: set {' and '.join(missing)} in the environment.")
        user = User(is_staff=True, is_superuser=True)
        try:
            for field, question, variable in PROMPTS:
                self._answer(user, field, question, variable)
        except EOFError:
            raise CommandError("\nNo administrator was created.") from None
        user.user_name = user.user_id
        user.set_password(user.password)
        user.save()
        log_security_event("privilege_granted", actor=operator(), subject=user.user_id, detail="is_staff, is_superuser")
        self.stdout.write(f"{user.user_id} can now log in at /admin/.")

    def _answer(self, user: User, field: str, question: str, variable: str) -> None:
        """Set the field from the environment, or from the first valid answer at the terminal."""
        if given := os.environ.get(variable):
            try:
                accept(user, field, given)
            except ValidationError as error:
                raise CommandError(f"{variable}: {' '.join(error.messages)}") from error
            return None
        while True:
            try:
                return accept(user, field, ask_twice(question) if field == "password" else input(f"{question}: "))
            except ValidationError as error:
                self.stderr.write(" ".join(error.messages))


def accept(user: User, field: str, text: str) -> None:
    """Set the field. Raise ValidationError if the value is invalid or taken by another user."""
    setattr(user, field, text)
    if field == "password":
        validate_password(text, user)
        return
    try:
        user.clean_fields(exclude={each.name for each in User._meta.fields} - {field})
        if field == "user_id":
            user.clean()
        user.validate_constraints(exclude={each.name for each in User._meta.fields} - {field})
    except ValidationError as error:
        raise ValidationError(error.messages) from error


def ask_twice(question: str) -> str:
    """Ask for the password twice. Raise ValidationError if the two differ."""
    password = getpass(f"{question}: ")
    if getpass(f"{question} again: ") != password:
        raise ValidationError("The passwords do not match.")
    return password
