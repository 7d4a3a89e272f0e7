from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from authsvc.accounts.two_factor.notices import reset
from authsvc.models import User
from runtime.security_log import operator
from runtime.terminal import printable, user_id_argument


class Command(BaseCommand):
    help = (
        "Turn off two-factor authentication for a user who has lost both phone and recovery codes. The user is "
        "notified by mail. With ADMIN_TWO_FACTOR=required, staff set it up again at their next login."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user_id", type=user_id_argument, metavar="USER_ID")

    def handle(self, *, user_id: str, **options: Any) -> None:
        try:
            user = User.objects.get_by_natural_key(user_id)
        except User.DoesNotExist:
            raise CommandError(f"There is no user {printable(user_id)}.") from None
        if not reset(user, actor=operator()):
            raise CommandError(f"{user.user_id} has no two-factor authentication.")
        self.stdout.write(f"{user.user_id} now logs in with the password alone.")
