"""`manage.py make_admin`: an administrator, by questions at a terminal or from the environment.

Whoever runs it holds the installation's database password, so there is no permission to check (docs/adr/0041).
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

# The model's field, the question, and the variable that answers it.
FIELDS: Final = (
    ("user_id", "User ID", "ADMIN_USER_ID"),
    ("email", "Email address", "ADMIN_EMAIL"),
    ("password", "Password", "ADMIN_PASSWORD"),
)


class Command(BaseCommand):
    help = (
        "Makes an administrator. Asks at the terminal for what ADMIN_USER_ID, ADMIN_EMAIL and ADMIN_PASSWORD in the "
        "environment do not say. Exit code 1 when none was made."
    )

    def handle(self, **options: Any) -> None:
        missing = [variable for _, _, variable in FIELDS if not os.environ.get(variable)]
        if missing and not sys.stdin.isatty():
            raise CommandError(f"There is no terminal here to ask at: say {' and '.join(missing)} in the environment.")
        user = User(is_staff=True, is_superuser=True)
        try:
            for field, question, variable in FIELDS:
                self._answer(user, field, question, variable)
        except EOFError:
            raise CommandError("\nNo administrator was made.") from None
        user.user_name = user.user_id
        user.set_password(user.password)
        user.save()
        log_security_event("privilege_granted", actor=operator(), subject=user.user_id, detail="is_staff, is_superuser")
        self.stdout.write(f"{user.user_id} may log in at /admin/ now.")

    def _answer(self, user: User, field: str, question: str, variable: str) -> None:
        """Sets the field: to what the environment says, or to the first good answer at the terminal."""
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
    """Sets the field. Raises ValidationError where it must not be so, or where another user has it."""
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
    """Raises ValidationError where the second is not the first."""
    password = getpass(f"{question}: ")
    if getpass(f"{question} again: ") != password:
        raise ValidationError("These are not the same.")
    return password
