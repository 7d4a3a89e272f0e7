"""A mail server in a separate process, which can be killed and frozen. It stores mails in a maildir."""

import smtplib
import sys
from collections.abc import Sequence
from contextlib import suppress
from mailbox import Maildir
from pathlib import Path

from tests.servers.process import LOOPBACK, Server


class MailServer(Server):
    """aiosmtpd's command with its mailbox handler."""

    name = "mail"

    @classmethod
    def missing(cls) -> str | None:
        return None

    def command(self) -> Sequence[str | Path]:
        server = [sys.executable, "-m", "aiosmtpd", "--nosetuid", "--listen", self.address]
        return [*server, "--class", "aiosmtpd.handlers.Mailbox", self.directory / "mails"]

    def is_ready(self) -> bool:
        with suppress(OSError, smtplib.SMTPException), smtplib.SMTP(LOOPBACK, self.port, timeout=5) as client:
            return client.noop()[0] == 250
        return False

    @property
    def env(self) -> dict[str, str]:
        return {"EMAIL_URL": f"smtp://{self.address}"}

    def texts(self) -> dict[str, str]:
        """The newest mail to each recipient."""
        return {mail["To"]: _text_of(mail.get_payload(decode=True)) for mail in Maildir(self.directory / "mails")}


def _text_of(payload: object) -> str:
    assert isinstance(payload, bytes)
    return payload.decode()
