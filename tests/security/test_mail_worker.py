"""Mail is sent on a dedicated thread: no request waits for the mail server."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
from django.core.mail import EmailMessage
from django.utils.translation import gettext, override

from authsvc.mail import MailWorker, public_link
from tests.security.mail_servers import mail_server, silent_mail_server
from tests.servers import free_port
from tests.waiting import eventually

MINA = "mina@example.org"


@pytest.fixture
def port(settings) -> int:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = free_port()
    settings.EMAIL_TIMEOUT = 0.3
    return settings.EMAIL_PORT


def new_worker(limit: int = 100, **times: float) -> MailWorker:
    return MailWorker(
        limit=limit, **({"first_pause": 0.05, "max_pause": 0.1, "max_pause_away": 0.1, "tried_for": 60.0} | times)
    )


def mail_to(address: str = MINA, subject: str = "Subject") -> Callable[[], EmailMessage]:
    return lambda: EmailMessage(subject, "the secret body", to=[address])


def ours(caplog: pytest.LogCaptureFixture) -> str:
    """The product's log lines, without those of the test's mail server."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name == "authsvc.mail")


def idle(worker: MailWorker) -> None:
    eventually(lambda: worker.waiting == 0)


def test_sending_returns_before_a_slow_server_has_the_mail(port: int):
    worker = new_worker()
    with mail_server(port, delay=0.2) as inbox:
        began = time.monotonic()
        assert worker.send_later(mail_to())
        assert time.monotonic() - began < 0.1
        idle(worker)
    assert inbox.recipients == [MINA]


def test_a_mail_is_composed_on_the_workers_thread_in_the_requests_language(port: int):
    worker, threads = new_worker(), []

    def compose() -> EmailMessage:
        threads.append(threading.current_thread().name)
        return EmailMessage(gettext("Log in"), "body", to=[MINA])

    with mail_server(port) as inbox:
        with override("ko"):
            worker.send_later(compose)
        idle(worker)
        worker.send_later(compose, language="en")
        idle(worker)
    assert threads == ["mail", "mail"]
    assert [str(mail["Subject"]) for mail in inbox.mails] != ["Log in", "Log in"]
    assert str(inbox.mails[1]["Subject"]) == "Log in"


def test_a_mail_without_a_recipient_is_not_sent(port: int):
    worker = new_worker()
    with mail_server(port) as inbox:
        worker.send_later(lambda: None)
        idle(worker)
    assert inbox.mails == []


def test_a_server_that_never_answers_costs_one_thread_and_a_bounded_queue_and_all_mails_are_sent_when_it_is_back(
    port: int, caplog: pytest.LogCaptureFixture
):
    worker = new_worker(limit=20)
    threads = threading.active_count()
    with silent_mail_server(port):
        began = time.monotonic()
        taken = [worker.send_later(mail_to(f"{number}@example.org")) for number in range(50)]
        assert time.monotonic() - began < 0.2
        assert threading.active_count() == threads + 1
        assert (taken.count(True), worker.waiting) == (20, 20)
        eventually(lambda: "will be retried" in ours(caplog))
        assert worker.waiting == 20
    assert ours(caplog).count("dropped a mail: the queue is full (20 waiting)") == 30
    with mail_server(port) as inbox:
        idle(worker)
    assert sorted(inbox.recipients) == sorted(f"{number}@example.org" for number in range(20))
    assert threading.active_count() == threads + 1


def test_a_server_that_is_down_is_tried_with_one_mail_at_a_time(port: int, caplog: pytest.LogCaptureFixture):
    worker = new_worker(first_pause=0.1, max_pause_away=0.1)
    began = time.monotonic()
    for number in range(20):
        worker.send_later(mail_to(f"{number}@example.org"))
    eventually(lambda: ours(caplog).count("will be retried") >= 5)
    assert time.monotonic() - began >= 0.4
    with mail_server(port) as inbox:
        idle(worker)
    assert len(inbox.mails) == 20


def test_a_mail_is_sent_soon_after_its_server_is_back_however_often_it_was_tried(
    port: int, caplog: pytest.LogCaptureFixture
):
    worker = new_worker(max_pause=3600, max_pause_away=0.1)
    worker.send_later(mail_to())
    eventually(lambda: "(attempt 10)" in ours(caplog), 5)
    with mail_server(port) as inbox:
        eventually(lambda: inbox.mails, 5)


def test_a_mail_is_retried_after_a_transient_refusal_and_not_after_a_permanent_one(
    port: int, caplog: pytest.LogCaptureFixture
):
    worker = new_worker()
    with mail_server(port, refusals=["451 come again", "451 come again"]) as inbox:
        worker.send_later(mail_to())
        idle(worker)
    assert inbox.recipients == [MINA]
    assert ours(caplog).count("will be retried") == 2
    with mail_server(port, refusals=["550 nobody here"]) as inbox:
        worker.send_later(mail_to())
        worker.send_later(mail_to("other@example.org"))
        idle(worker)
    assert inbox.recipients == ["other@example.org"]
    assert ours(caplog).count("is dropped") == 1


def test_a_mail_is_dropped_after_its_time_and_the_log_names_nobody(port: int, caplog: pytest.LogCaptureFixture):
    worker = new_worker(tried_for=0.3)
    with caplog.at_level(logging.DEBUG):
        worker.send_later(mail_to())
        idle(worker)
    assert "a mail could not be sent (attempt 1) and will be retried" in ours(caplog)
    assert "and is dropped: ConnectionRefusedError" in ours(caplog)
    assert "mina" not in ours(caplog)
    assert "secret" not in ours(caplog)


@pytest.mark.parametrize("error", [ValueError(MINA), KeyError(MINA)])
def test_a_mail_that_cannot_be_composed_is_dropped_and_the_next_one_is_sent(
    port: int, caplog: pytest.LogCaptureFixture, error: Exception
):
    def fail() -> EmailMessage:
        raise error

    worker = new_worker()
    with mail_server(port) as inbox:
        worker.send_later(fail)
        worker.send_later(mail_to(subject="two\nlines"))
        worker.send_later(mail_to())
        idle(worker)
    assert inbox.recipients == [MINA]
    assert ours(caplog).count("is dropped") == 2
    assert "test_mail_worker.py" in ours(caplog)
    assert "mina" not in ours(caplog)


def test_a_stopping_process_waits_only_for_mails_that_can_still_be_sent(port: int, caplog: pytest.LogCaptureFixture):
    worker = new_worker()
    with mail_server(port, delay=0.1) as inbox:
        worker.send_later(mail_to())
        worker.drain(5)
        assert inbox.recipients == [MINA]
    with silent_mail_server(port):
        for _ in range(3):
            worker.send_later(mail_to())
        began = time.monotonic()
        worker.drain(0.1)
        worker.drain(30)
        assert time.monotonic() - began < 1
    assert "the process stops: 2 mails were not sent" in ours(caplog)
    idle(worker)


def test_links_lead_to_the_public_address(settings):
    settings.PUBLIC_URL = "https://signup.example.org"
    assert public_link("login") == "https://signup.example.org/login/"
