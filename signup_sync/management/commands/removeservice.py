"""`manage.py removeservice <name>`: take a participant out of the project."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from runtime.terminal import typed_answer
from signup_sync.management.commands.startservice import write_files
from signup_sync.new_service.catalogue import CATALOGUE, compile_catalogue, remove_texts
from signup_sync.new_service.files import delete_files
from signup_sync.new_service.names import Names
from signup_sync.new_service.shared_files import SharedFileError, remove
from signup_sync.participants import PARTICIPANTS


class Command(BaseCommand):
    help = (
        "Take a participant out of the project: delete its package and its other files, and its lines in the shared "
        "files. Its database, its messages and the lights of past sign-ups remain."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", help="The service's name, for example: billing")
        parser.add_argument("--no-input", action="store_true", help="delete without asking")

    def handle(self, *, service: str, no_input: bool, **options: Any) -> None:
        root, names = settings.BASE_DIR, Names(service)
        others = [each for each in PARTICIPANTS if each != service]
        if service not in PARTICIPANTS:
            raise CommandError(f"{service} is not a participant: {', '.join(PARTICIPANTS)} are.")
        if not others:
            raise CommandError(f"{service} is the only participant, and a new one is copied from an existing one.")
        if not no_input:
            self._confirm(names)
        try:
            shared = dict(remove(root, service, like=others[-1]))
        except SharedFileError as error:
            raise CommandError(f"Can't remove {service}: {error}.") from error
        shared[CATALOGUE] = remove_texts((root / CATALOGUE).read_text(), service)
        write_files(root, shared)
        deleted = delete_files(root, names)
        is_compiled = compile_catalogue(root)
        self.stdout.write(f"Deleted: {', '.join(deleted)}\nChanged: {', '.join(shared)}\n")
        self.stdout.write(
            f"Restart every role. The database {service} stays: drop it, with its roles {service} and {service}_owner, "
            f"when nobody needs its data."
        )
        if not is_compiled:
            self.stdout.write("gettext is not installed: install it, and run `make messages` to compile the catalogue.")

    def _confirm(self, names: Names) -> None:
        question = f"This deletes {names.package}/ with your code. Type {names.service} to go on: "
        if typed_answer(question) != names.service:
            raise CommandError("Nothing was removed.")
