"""Mail leaves after the response: one thread composes and sends what waits in a bounded queue (docs/adr/0044)."""

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
from runtime.errors import is_transient

logger = logging.getLogger(__name__)

# Seconds between two tries of a mail that the server refused for now, at first and at most; the pause doubles.
FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 60.0
# The longest pause after a server could not be reached or did not answer, which holds for all mails: mails leave within
# so many seconds of its return.
MAX_PAUSE_AWAY: Final = 5.0
# Seconds for which a mail is tried: as long as the link of a password reset works.
TRIED_FOR: Final = 3600.0
# Seconds that what waits gets to leave when the process ends: less than the web process takes to close all else.
LEAVES_WITHIN: Final = 0.8

# Answers of a server that works, about this mail; other errors are about the server.
_ABOUT_ONE_MAIL: Final = (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError)

# Gives the mail to send, or None when there is none to send after all.
Compose = Callable[[], EmailMessage | None]


@dataclass(order=True)
class _Waiting:
    """A mail in the queue, which is a heap: the one that is due first, comes first."""

    due_at: float
    number: int
    compose: Compose = field(compare=False)
    language: str = field(compare=False)
    given_up_at: float = field(compare=False)
    message: EmailMessage | None = field(compare=False, default=None)
    tries: int = field(compare=False, default=0)


class MailWorker:
    """Sends mails on a thread of its own, which starts with the first of them.

    What is lost with the process is not sent again, so a mail must be something that its reader can ask for again.
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
        # Guards what follows. It is held for moments only: the event loop takes it too.
        self._changed = threading.Condition()
        self._heap: list[_Waiting] = []
        self._count = 0
        self._in_hand: _Waiting | None = None
        self._thread: threading.Thread | None = None
        # The thread's own: how often in a row the server was away, and when it is asked again.
        self._connection: Any = None
        self._times_away = 0
        self._resumes_at = 0.0

    @property
    def waiting(self) -> int:
        """The mails that are being sent or wait for it."""
        with self._changed:
            return self._waiting

    @property
    def _waiting(self) -> int:
        return len(self._heap) + (self._in_hand is not None)

    def send_later(self, compose: Compose, *, language: str | None = None) -> bool:
        """Has `compose` called on the worker's thread, and what it gives sent; returns at once, from any thread.

        `compose` may read the database, and runs in `language`, by default the caller's. False when too many mails
        wait already: then nothing is sent, and a log line and a metric say so.
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
            logger.error("a mail is not sent: %d wait already", self._limit)
        return is_taken

    def drain(self, within: float = LEAVES_WITHIN) -> None:
        """Gives what is due `within` seconds to leave, and drops the rest: the process ends. Called again, it does not
        wait again for what hangs."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._is_sending_in_time() or self._is_due()), within)
            left = len(self._heap)
            self._heap.clear()
            if self._in_hand is not None:
                self._in_hand.given_up_at = 0.0
        if left:
            MAILS.labels("dropped").inc(left)
            logger.error("the process ends, and %d mails were not sent", left)

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
        mail.tries += 1
        is_away = isinstance(error, OSError) and not isinstance(error, _ABOUT_ONE_MAIL)
        self._times_away = self._times_away + 1 if is_away else 0
        if is_away:
            mail.due_at = time.monotonic() + self._pause(self._times_away, self._max_pause_away)
        else:
            mail.due_at = time.monotonic() + self._pause(mail.tries, self._max_pause)
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
            _log_failure(error, tries=mail.tries, is_tried_again=is_tried_again)

    def _pause(self, tries: int, longest: float) -> float:
        return min(self._first_pause * 2.0 ** min(tries - 1, 16), longest) * uniform(1, 1.1)  # noqa: S311 - jitter

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
    """Whether the same mail would fail again: this address, or this mail, is refused, or our own code is wrong."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError):
        return error.smtp_code >= 500
    return not (isinstance(error, OSError) or is_transient(error))


def _log_failure(error: Exception, *, tries: int, is_tried_again: bool) -> None:
    """Says what kind of error it was: what it says may name the person, or quote the mail."""
    kind = type(error).__name__
    if is_tried_again:
        MAILS.labels("retried").inc()
        logger.warning("a mail could not be sent (try %d) and is tried again: %s", tries, kind)
        return
    MAILS.labels("dropped").inc()
    where = "" if isinstance(error, OSError) else "\n" + "".join(traceback.format_tb(error.__traceback__))
    logger.error("a mail could not be sent (try %d) and is dropped: %s%s", tries, kind, where)


@cache
def mail_worker() -> MailWorker:
    """That of this process. A command that ends at once gives it a moment."""
    worker = MailWorker(limit=settings.MAIL_QUEUE_LIMIT)
    atexit.register(worker.drain)
    return worker


def send_later(compose: Compose, *, language: str | None = None) -> bool:
    """MailWorker.send_later() of this process."""
    return mail_worker().send_later(compose, language=language)


def public_link(view: str, **arguments: Any) -> str:
    """The absolute address of a page: below PUBLIC_URL, whatever host a request was made to."""
    return settings.PUBLIC_URL + reverse(view, kwargs=arguments)


def mail_from(templates: str, *, to: str, **context: Any) -> EmailMessage:
    """The mail of `<templates>_subject.txt` and `<templates>_mail.txt`, in the language that is active."""
    subject = render_to_string(f"{templates}_subject.txt", context)
    # A newline in a subject would begin another header.
    return EmailMessage("".join(subject.splitlines()), render_to_string(f"{templates}_mail.txt", context), to=[to])
