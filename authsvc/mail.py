"""Send mails after the response: one thread composes and sends the mails of a bounded queue (docs/adr/0044)."""

import atexit
import heapq
import logging
import smtplib
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from random import uniform
from typing import Any, Final

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import close_old_connections
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import get_language, override

from authsvc.metrics import MAILS, MAILS_WAITING
from runtime.backoff import doubled
from runtime.errors import is_transient

logger = logging.getLogger(__name__)

# First and longest pause, in seconds, after the server temporarily refused a mail; the pause doubles each time.
FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 60.0
# The longest pause, in seconds and for all mails, after the server was unreachable or silent: sending resumes within
# this time of the server's return.
MAX_PAUSE_AWAY: Final = 5.0
# Seconds after which a mail is given up: the lifetime of a password reset link.
TRIED_FOR: Final = 3600.0
# Seconds to send waiting mails at shutdown: less than the web process takes to close everything else.
LEAVES_WITHIN: Final = 0.8

# A working server's errors about one mail; all other errors concern the server.
_ABOUT_ONE_MAIL: Final = (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError)

# Returns the mail, or None if there is nothing to send after all.
Compose = Callable[[], EmailMessage | None]


@dataclass(order=True)
class _Waiting:
    """A mail in the queue, a heap ordered by due time."""

    due_at: float
    number: int
    compose: Compose = field(compare=False)
    language: str = field(compare=False)
    given_up_at: float = field(compare=False)
    message: EmailMessage | None = field(compare=False, default=None)
    attempts: int = field(compare=False, default=0)


class MailWorker:
    """Sends mails on a dedicated thread, which starts with the first mail.

    Mails in the queue are lost if the process dies, so only mails that the recipient can request again belong here.
    """

    def __init__(
        self,
        *,
        limit: int,
        first_pause: float = FIRST_PAUSE,
        max_pause: float = MAX_PAUSE,
        max_pause_away: float = MAX_PAUSE_AWAY,
        tried_for: float = TRIED_FOR,
    ) -> None:
        self._limit = limit
        self._first_pause = first_pause
        self._max_pause = max_pause
        self._max_pause_away = max_pause_away
        self._tried_for = tried_for
        # Guards the fields below. Hold it only briefly: the event loop acquires it too.
        self._changed = threading.Condition()
        self._heap: list[_Waiting] = []
        self._count = 0
        self._in_hand: _Waiting | None = None
        self._thread: threading.Thread | None = None
        # Used only by the thread: consecutive failures to reach the server, and the time of the next attempt.
        self._connection: Any = None
        self._times_away = 0
        self._resumes_at = 0.0

    @property
    def waiting(self) -> int:
        """The number of mails being sent or waiting to be sent."""
        with self._changed:
            return self._waiting

    @property
    def _waiting(self) -> int:
        return len(self._heap) + (self._in_hand is not None)

    def send_later(self, compose: Compose, *, language: str | None = None) -> bool:
        """Queue a mail and return at once. Can be called from any thread; `compose` runs on the worker's thread.

        `compose` may read the database and runs in `language`, by default the caller's. Return False if too many mails
        are waiting already: the mail is then dropped, logged and counted.
        """
        now = time.monotonic()
        with self._changed:
            is_taken = self._waiting < self._limit
            if is_taken:
                self._count += 1
                language = language or get_language() or settings.LANGUAGE_CODE
                heapq.heappush(self._heap, _Waiting(now, self._count, compose, language, now + self._tried_for))
                MAILS_WAITING.set(self._waiting)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="mail", daemon=True)
                    self._thread.start()
                self._changed.notify_all()
        if not is_taken:
            MAILS.labels("refused").inc()
            logger.error("dropped a mail: the queue is full (%d waiting)", self._limit)
        return is_taken

    def drain(self, within: float = LEAVES_WITHIN) -> None:
        """At shutdown, wait up to `within` seconds until due mails are sent, and drop the rest. A second call doesn't
        wait again for a mail that hangs."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._is_sending_in_time() or self._is_due()), within)
            left = len(self._heap)
            self._heap.clear()
            if self._in_hand is not None:
                self._in_hand.given_up_at = 0.0
        if left:
            MAILS.labels("dropped").inc(left)
            logger.error("the process stops: %d mails were not sent", left)

    def _run(self) -> None:
        while True:
            self._wait_until_one_is_due()
            try:
                while (mail := self._take()) is not None:
                    self._send(mail)
            finally:
                self._disconnect()
                close_old_connections()

    def _wait_until_one_is_due(self) -> None:
        with self._changed:
            while not self._is_due():
                self._changed.wait(self._due_at() - time.monotonic() if self._heap else None)

    def _is_sending_in_time(self) -> bool:
        return self._in_hand is not None and self._in_hand.given_up_at > 0

    def _is_due(self) -> bool:
        return bool(self._heap) and self._due_at() <= time.monotonic()

    def _due_at(self) -> float:
        return max(self._heap[0].due_at, self._resumes_at)

    def _take(self) -> _Waiting | None:
        with self._changed:
            if not self._is_due():
                return None
            self._in_hand = heapq.heappop(self._heap)
            return self._in_hand

    def _send(self, mail: _Waiting) -> None:
        error = None
        try:
            self._compose_and_send(mail)
        except Exception as raised:
            error = raised
            self._disconnect()
        mail.attempts += 1
        is_away = isinstance(error, OSError) and not isinstance(error, _ABOUT_ONE_MAIL)
        self._times_away = self._times_away + 1 if is_away else 0
        if is_away:
            mail.due_at = time.monotonic() + self._pause(self._times_away, self._max_pause_away)
        else:
            mail.due_at = time.monotonic() + self._pause(mail.attempts, self._max_pause)
        with self._changed:
            self._in_hand = None
            if is_away:
                self._resumes_at = mail.due_at
            is_tried_again = error is not None and not _is_final(error) and mail.due_at < mail.given_up_at
            if is_tried_again:
                heapq.heappush(self._heap, mail)
            MAILS_WAITING.set(self._waiting)
            self._changed.notify_all()
        if error is not None:
            _log_failure(error, attempts=mail.attempts, is_tried_again=is_tried_again)

    def _pause(self, attempts: int, longest: float) -> float:
        return doubled(self._first_pause, times=attempts - 1, most=longest) * uniform(1, 1.1)  # noqa: S311 - jitter

    def _compose_and_send(self, mail: _Waiting) -> None:
        if mail.message is None:
            close_old_connections()
            with override(mail.language):
                mail.message = mail.compose()
        if mail.message is None:
            return
        if self._connection is None:
            connection = get_connection()
            connection.open()
            self._connection = connection
        self._connection.send_messages([mail.message])
        MAILS.labels("sent").inc()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()


def _is_final(error: Exception) -> bool:
    """Whether retrying is pointless: the server refuses the address or the mail for good, or our own code has a bug."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError):
        return error.smtp_code >= 500
    return not (isinstance(error, OSError) or is_transient(error))


def _log_failure(error: Exception, *, attempts: int, is_tried_again: bool) -> None:
    """Log only the error's type and code location: its message may name the person or quote the mail."""
    kind = type(error).__name__
    if is_tried_again:
        MAILS.labels("retried").inc()
        logger.warning("a mail could not be sent (attempt %d) and will be retried: %s", attempts, kind)
        return
    MAILS.labels("dropped").inc()
    where = "" if isinstance(error, OSError) else "\n" + "".join(traceback.format_tb(error.__traceback__))
    logger.error("a mail could not be sent (attempt %d) and is dropped: %s%s", attempts, kind, where)


@cache
def mail_worker() -> MailWorker:
    """Return this process's worker. At exit it is drained, so that the mails of a short command are sent."""
    worker = MailWorker(limit=settings.MAIL_QUEUE_LIMIT)
    atexit.register(worker.drain)
    return worker


def send_later(compose: Compose, *, language: str | None = None) -> bool:
    """Queue a mail in this process's worker (MailWorker.send_later)."""
    return mail_worker().send_later(compose, language=language)


def public_link(view: str, **arguments: Any) -> str:
    """Return the absolute URL of a page, based on PUBLIC_URL and never on the Host header of a request."""
    return settings.PUBLIC_URL + reverse(view, kwargs=arguments)


def mail_from(templates: str, *, to: str, **context: Any) -> EmailMessage:
    """Render a mail from `<templates>_subject.txt` and `<templates>_mail.txt` in the active language."""
    subject = render_to_string(f"{templates}_subject.txt", context)
    # A newline in the subject would start another header.
    return EmailMessage("".join(subject.splitlines()), render_to_string(f"{templates}_mail.txt", context), to=[to])
