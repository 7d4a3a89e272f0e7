"""`manage.py run_local`, which `make run` calls: run the whole installation with embedded servers."""

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
from signup_sync.local.preconditions import CannotStart, hold, port_number, reserve_port, write_address


class Command(BaseCommand):
    help = "Run every role on this machine, with an embedded broker and Valkey, until Ctrl-C. PORT: port of the pages."
    requires_system_checks = ()  # they would read databases that have not been checked yet

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._run()
        except CannotStart as problem:
            sys.exit(str(problem))

    def _run(self) -> None:
        if settings.PRODUCTION:
            raise CannotStart("PRODUCTION is set, but this command is for local use. The README explains deployment.")
        os.umask(0o077)  # the databases contain password hashes, and the logs contain users' actions
        data_dir: Path = settings.DATA_DIR.resolve()
        port = port_number(os.environ.get("PORT", "8000"))
        with hold(data_dir) as lock, reserve_port(port) as listener:
            address = "http://{}:{}/".format(*listener.getsockname())
            write_address(lock, address)
            prepare_databases(self.tell)
            asyncio.run(run_installation(listener, address=address, data_dir=data_dir, tell=self.tell))

    def tell(self, line: str) -> None:
        """Print a line immediately. A closed terminal must not stop the installation halfway."""
        with contextlib.suppress(OSError):
            self.stdout.write(line)
            self.stdout.flush()
