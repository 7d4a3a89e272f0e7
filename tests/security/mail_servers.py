"""Slow mail servers: one that accepts mail after a pause, and one that accepts connections and never answers."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email import message_from_bytes
from email.message import Message
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope

from tests.servers.process import LOOPBACK

# A line at INFO for each command of each mail would hide the output of a failed test.
logging.getLogger("mail.log").setLevel(logging.WARNING)


class Inbox:
    """A mail that a mail server accepted."""

    def __init__(self, delay: float, refusals: list[str]) -> None:
        self._delay = delay
        self._refusals = refusals
        self.mails: list[Message] = []

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._refusals:
            return self._refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:  # noqa: N802 - the same
        await asyncio.sleep(self._delay)
        content = envelope.content
        self.mails.append(message_from_bytes(content if isinstance(content, bytes) else content.encode()))
        return "250 taken"

    def text_of(self, number: int = -1) -> str:
        payload = self.mails[number].get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload.decode()

    @property
    def recipients(self) -> list[str]:
        return [mail["To"] for mail in self.mails]


@contextmanager
def mail_server(port: int, *, delay: float = 0.0, refusals: list[str] | None = None) -> Iterator[Inbox]:
    """A server that accepts each mail after `delay` seconds. `refusals` are its answers to the first recipients."""
    inbox = Inbox(delay, refusals or [])
    controller = Controller(inbox, hostname=LOOPBACK, port=port)
    controller.start()
    try:
        yield inbox
    finally:
        controller.stop()


@contextmanager
def silent_mail_server(port: int) -> Iterator[socket.socket]:
    """A port where the kernel accepts connections and no program ever answers."""
    with closing(socket.create_server((LOOPBACK, port), backlog=1000)) as listener:
        yield listener
