"""`manage.py forget`: remove accounts for good, in every service."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from authsvc.models import NoSuchAccountError, User
from authsvc.signups import publisher
from authsvc.signups.changes import remove_account
from runtime.equality import user_id_key
from runtime.security_log import log_security_event, operator
from runtime.terminal import printable, typed_answer, user_id_argument


class Command(BaseCommand):
    help = (
        "Remove accounts for good, in every service, and erase the personal data in their records. Nothing can restore "
        "them. Others can then sign up with their user IDs and email addresses. The command prints the ID of each "
        "removal, whose lights the administration shows. The exit code is 1 if there is no such account."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user_ids", nargs="+", type=user_id_argument, metavar="USER_ID")
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    def handle(self, *, user_ids: list[str], yes: bool, **options: Any) -> None:
        wanted = {user_id_key(user_id): user_id for user_id in user_ids}
        users = {user.user_id_key: user for user in User.objects.filter(user_id_key__in=wanted)}
        if unknown := [printable(wanted[key]) for key in wanted if key not in users]:
            raise CommandError(f"There is no account with the user ID {', '.join(unknown)}. Nothing was removed.")
        if not yes:
            self._confirm(len(users))
        try:
            for key in wanted:
                self._remove(users[key])
        finally:
            publisher.close()

    def _confirm(self, count: int) -> None:
        if not sys.stdin.isatty():
            raise CommandError("There is no terminal to ask at: confirm with --yes. Nothing was removed.")
        if typed_answer(f"Remove {count} account{'s' * (count > 1)} for good? Type yes: ").lower() != "yes":
            raise CommandError("Nothing was removed.")

    def _remove(self, user: User) -> None:
        user_id = user.user_id
        try:
            row = remove_account(user)
        except NoSuchAccountError:
            self.stderr.write(f"{printable(user_id)} was removed by somebody else in the meantime.")
            return
        log_security_event("account_removed", actor=operator(), detail=str(row.owner_signup_id))
        self.stdout.write(f"{printable(user_id)} is removed here; the services follow. Removal: {row.id}")
