"""The lifecycle that long-running commands share: a clean stop on signals, health checks, and waiting for dependencies.

with running_role("relay") as role:
    role.ready()
    while not role.stop.is_set():
        role.beat()
        ...
"""

import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NoReturn

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from runtime.backoff import growing_pauses
from runtime.errors import TransientError, in_one_line, is_transient
from runtime.metrics import HEARTBEAT_AGE
from runtime.processes.health import Heartbeat, health_server
from runtime.processes.instances import InstanceReport

logger = logging.getLogger(__name__)

# Seconds after a stop request until the process is ended, even in the middle of its work.
ENDS_WITHIN: Final = 5.0
# Seconds between two attempts to reach a dependency: the first and the longest pause.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0
# Seconds between two checks of the role's heartbeat, and how many checks in a row may fail.
STUCK_CHECK_INTERVAL: Final = 5.0
STUCK_CHECKS: Final = 12
# Thresholds for gc.set_threshold(): net new objects before a collection of the youngest generation, and the number of
# collections of each generation before one of the next.
COLLECT_AFTER: Final = (50_000, 10, 10)
# Tag of the system checks that every process runs at start: those for settings that must be consistent. The others
# check models, pages and the admin, which change only with the code; they would cost each role 0.2 s of CPU and 10 MiB.
START_CHECKS: Final = "start"
# Tag of further checks for the web process and auth's instances, which alone send mails.
SERVE_CHECKS: Final = "serve"
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class RunningRole:
    """A long-running command. `stop` is set when it should end; its health checks report `heartbeat`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stop = threading.Event()
        self.heartbeat = Heartbeat()

    def beat(self) -> None:
        """Record a heartbeat. Call this at least every 30 s, or the role counts as stuck."""
        self.heartbeat.beat()

    def ready(self) -> None:
        """Mark the role as ready."""
        self.heartbeat.ready()

    def wait_for(self, what: str, check: Callable[[], object]) -> bool:
        """Retry `check` until it succeeds, and log what the role waits for. False if `stop` was set first.

        Raises any error of `check` that is not transient.
        """
        for pause in growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE):
            if self.stop.is_set():
                break
            self.beat()
            try:
                check()
            except Exception as error:
                if not is_transient(error):
                    raise
                logger.warning("%s waits for %s: %s", self.name, what, in_one_line(error))
            else:
                return True
            self.stop.wait(pause)
        return False


@contextmanager
def running_role(name: str) -> Iterator[RunningRole]:
    """Run a role until SIGTERM or SIGINT, with health checks on HEALTH_HOST:HEALTH_PORT (none if the port is 0).

    Enter it on the main thread. The exit code is 0 after a stop request, and 1 if the role failed, was still running
    ENDS_WITHIN seconds after the request, or was stuck for over a minute (docs/adr/0034).
    """
    collect_rarely()
    role = RunningRole(name)
    HEARTBEAT_AGE.set_function(lambda: role.heartbeat.age)
    address = f"{settings.HEALTH_HOST}:{settings.HEALTH_PORT}" if settings.HEALTH_PORT else ""
    with ExitStack() as stack:
        report = stack.enter_context(InstanceReport(name, role.heartbeat, address=address))
        stack.enter_context(_stop_on_signals(role, report))
        stack.enter_context(_ends_when_stuck(role))
        if settings.HEALTH_PORT:
            try:
                stack.enter_context(health_server(role.heartbeat, host=settings.HEALTH_HOST, port=settings.HEALTH_PORT))
            except OSError as error:
                where = f"{settings.HEALTH_HOST}:{settings.HEALTH_PORT}"
                raise CommandError(
                    f"{name} can't listen on {where} for its health page: {error}. Set HEALTH_PORT."
                ) from error
        logger.info("%s started", name)
        yield role
    logger.info("%s stopped", name)


def collect_rarely() -> None:
    """Make garbage collections rare, and exclude all current objects from them. Call it after all imports.

    Sign-ups leave no reference cycles behind, and the objects of held streams are not garbage (docs/adr/0036).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def check_database(app_label: str) -> None:
    """Check that this app's database answers and is fully migrated.

    Raises a transient error otherwise: a role that started before the migrations would dead-letter every message.
    """
    connection = connections[settings.SERVICE_DATABASES.get(app_label, "default")]
    try:
        executor = MigrationExecutor(connection)
        wanted = [node for node in executor.loader.graph.leaf_nodes() if node[0] == app_label]
        if executor.migration_plan(wanted):
            raise TransientError(f"{app_label} has unapplied migrations: run manage.py migrate_all")
    finally:
        connection.close()


class StuckDetector:
    """Detect a stuck role by counting checks, not seconds: a process that was frozen as a whole is not stuck."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._in_a_row = 0

    def is_stuck_now(self) -> bool:
        """Check once more; True if more than STUCK_CHECKS checks in a row found no heartbeat."""
        self._in_a_row = 0 if self._heartbeat.is_live else self._in_a_row + 1
        return self._in_a_row > STUCK_CHECKS


@contextmanager
def _ends_when_stuck(role: RunningRole) -> Iterator[None]:
    ended = threading.Event()
    detector = StuckDetector(role.heartbeat)

    def watch() -> None:
        while not ended.wait(STUCK_CHECK_INTERVAL):
            if detector.is_stuck_now():
                logger.error("%s has been stuck for %.0f s and ends for a restart", role.name, role.heartbeat.age)
                os._exit(1)

    watcher = threading.Thread(target=watch, name="stuck", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _stop_on_signals(role: RunningRole, report: InstanceReport) -> Iterator[None]:
    """Set `stop` on a signal, even while the main thread is blocked in a call of a library.

    Python runs handlers only after the main thread returns from such a call, and a handler that sets an Event can
    deadlock with a wait for it. So the handlers do nothing, and a thread reads the signal from the wake-up socket.
    """
    ended = threading.Event()
    receiver, sender = socket.socketpair()
    with receiver, sender:
        sender.setblocking(False)
        watcher = threading.Thread(
            target=_watch, args=(role, report, receiver, ended), name="stop-signals", daemon=True
        )
        watcher.start()
        handlers = {number: signal.signal(number, _do_nothing) for number in STOP_SIGNALS}
        wakeup = signal.set_wakeup_fd(sender.fileno())
        try:
            yield
        finally:
            ended.set()
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            sender.close()
            watcher.join()


def _watch(role: RunningRole, report: InstanceReport, receiver: socket.socket, ended: threading.Event) -> None:
    while number := receiver.recv(1):
        if signal.Signals(number[0]) in STOP_SIGNALS:
            break
    else:
        return
    logger.info("%s stops: %s", role.name, signal.Signals(number[0]).name)
    role.stop.set()
    report.show_draining()
    if not ended.wait(ENDS_WITHIN):
        # Offsets are committed after the work, so interrupted work is repeated after the next start.
        end_at_once(role.name)


def end_at_once(name: str) -> NoReturn:
    """Exit with code 1, because the process has not stopped within ENDS_WITHIN seconds."""
    logger.error("%s did not stop within %g s and is terminated", name, ENDS_WITHIN)
    os._exit(1)


def _do_nothing(*_: object) -> None:
    pass
