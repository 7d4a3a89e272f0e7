"""`manage.py startservice <name>`: add a participant to the project."""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from signup_sync.new_service.catalogue import CATALOGUE, add_texts, compile_catalogue
from signup_sync.new_service.files import own_files
from signup_sync.new_service.names import Names, RefusedNameError, check_name, check_text
from signup_sync.new_service.shared_files import SharedFileError, add
from signup_sync.participants import PARTICIPANTS


class Command(BaseCommand):
    help = (
        "Add a participant to the project: its package with the model, admin, handlers and migration, its test and "
        "its canvas, and its lines in the settings, the import contracts, the deployment and the Korean catalogue. "
        "Existing files are never overwritten. `removeservice` undoes all of this."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", help="The service's name, for example: billing")
        parser.add_argument(
            "--korean", metavar="NAME", help="its name in Korean; by default, the Korean pages show the English one"
        )

    def handle(self, *, service: str, korean: str | None, **options: Any) -> None:
        root, names = settings.BASE_DIR, Names(service)
        try:
            check_name(service)
            if korean is not None:
                check_text(korean)
            shared = dict(add(root, service, like=PARTICIPANTS[-1]))
            shared[CATALOGUE] = add_texts((root / CATALOGUE).read_text(), service, korean or service.capitalize())
        except (RefusedNameError, SharedFileError) as error:
            raise CommandError(f"Can't add {service}: {error}.") from error
        own = own_files(root, names, like=PARTICIPANTS[-1])
        if there := [path for path in own if (root / path).exists()]:
            raise CommandError(f"Can't add {service}: {there[0]} exists already.")
        write_files(root, {**own, **shared})
        is_compiled = compile_catalogue(root)
        make_migration(root, names)
        self.stdout.write(report(names, own, shared))
        if not is_compiled:
            self.stdout.write("gettext is not installed: install it, and run `make messages` to compile the catalogue.")


def report(names: Names, own: Iterable[str], shared: Iterable[str]) -> str:
    added = "".join(f"  {path}\n" for path in (*own, f"{names.package}/migrations/0001_initial.py"))
    changed = "".join(f"  {path}\n" for path in shared)
    service, package = names.service, names.package
    return f"""Added:
{added}Changed:
{changed}
Next:
  1. Write the model's own fields in {package}/models.py, and what happens with a new user in
     {package}/handlers.py. After a change of the model: python manage.py makemigrations {package}
  2. python manage.py migrate_all
  3. Start it: `make run` does; elsewhere, python manage.py consume_events {service}
     With compose.yaml: sh deploy/make-secrets.sh && docker compose up --build --detach
     With Kubernetes: create the secrets {service} and {service}-owner (deploy/k8s/README.md)
     If SIGNUP_SERVICES is set, add {service} to it.
  4. Once it runs, send it the users who signed up before:
     python manage.py replay_signups --all --service {service}
"""


def write_files(root: Path, texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def make_migration(root: Path, names: Names) -> None:
    """Make the first migration in a new process, which reads the new settings."""
    command = [sys.executable, str(root / "manage.py"), "makemigrations", names.package, "--verbosity", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise CommandError(f"The files are there, but makemigrations failed:\n{done.stderr}")
