"""`manage.py run_local`, which is `make run`: the whole installation on the embedded default."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from signup_sync.local.databases import prepare_databases
from signup_sync.local.installation import run_installation
from signup_sync.local.preconditions import CannotStart, hold, listen, port_number, write_address


class Command(BaseCommand):
    help = "Runs every role on this machine, with an embedded broker and Valkey, until Ctrl-C. PORT: the web's port."
    requires_system_checks = ()  # they would read databases that nobody has looked at yet

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._run()
        except CannotStart as problem:
            sys.exit(str(problem))

    def _run(self) -> None:
        if settings.PRODUCTION:
            raise CannotStart("PRODUCTION is set, and this is for trying out: the README says how to run it for real.")
        os.umask(0o077)  # the databases hold the passwords' hashes, the logs what people did
        data_dir: Path = settings.DATA_DIR.resolve()
        port = port_number(os.environ.get("PORT", "8000"))
        with hold(data_dir) as lock, listen(port) as listener:
            address = "http://{}:{}/".format(*listener.getsockname())
            write_address(lock, address)
            prepare_databases(self.tell)
            asyncio.run(run_installation(listener, address=address, data_dir=data_dir, tell=self.tell))

    def tell(self, line: str) -> None:
        """Shows a line at once; a terminal that has gone is no reason to end in the middle of things."""
        with contextlib.suppress(OSError):
            self.stdout.write(line)
            self.stdout.flush()
