"""Registers the web process for the instances page. runtime.processes.roles registers the other roles."""

import asyncio
import atexit
from typing import Any, Final

from django.conf import settings

from runtime.processes.health import Heartbeat
from runtime.processes.instances import InstanceReport

# Seconds between two heartbeats, which show that the event loop runs.
BEAT: Final = 1.0


class WebInstance:
    """Registers the process with the application's first call, usually a health probe: the event loop doesn't exist
    earlier."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._heartbeat = Heartbeat()
        self._report: InstanceReport | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        report = self._report or self._register()
        if not report.address and (server := scope.get("server")):
            report.address = f"{server[0]}:{server[1]}"
        await self._application(scope, receive, send)

    def _register(self) -> InstanceReport:
        self._heartbeat.ready()
        self._report = report = InstanceReport(settings.WEB_ROLE, self._heartbeat)
        report.__enter__()
        atexit.register(report.__exit__)
        self._beat(asyncio.get_running_loop())
        return report

    def show_draining(self) -> None:
        """Show the process as draining from now on. A signal handler may call it."""
        if self._report is not None:
            self._report.show_draining()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._heartbeat.beat()
        loop.call_later(BEAT, self._beat, loop)
