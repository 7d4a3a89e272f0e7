"""The format of log lines, and the secrets that they never contain."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest
from structlog.contextvars import bound_contextvars

from runtime.logs import LogFormat, formatter

SIGNUP = UUID("0199aa00-0000-7000-8000-000000000001")
OTHER = UUID("0199aa00-0000-7000-8000-000000000002")
TICKET = "0199aa00:1vMpQx:nobody-may-read-this"
PASSWORD = "correct horse battery staple"


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(self.format(record))

    @property
    def last(self) -> dict[str, object]:
        return json.loads(self.written[-1])


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("a.library")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield logger
    logger.propagate = True
    logger.handlers.clear()


def lines_of(logger: logging.Logger, kind: LogFormat) -> Lines:
    lines = Lines()
    lines.setFormatter(formatter(kind))
    logger.addHandler(lines)
    return lines


def test_any_librarys_line_is_one_json_object():
    args = ("this", 5)
    record = logging.LogRecord("a.library", logging.WARNING, "", 0, 'said "%s"\nand more, %d %% \udcff', args, None)
    line = formatter("json").format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert (said["event"], said["level"]) == ('said "this"\nand more, 5 % \udcff', "warning")
    assert said["logger"] == "a.library"
    assert said["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    "known", [{"signup_id": SIGNUP}, {"signup_id": str(SIGNUP)}, {"trace_id": SIGNUP.hex}], ids=str
)
def test_a_line_with_a_sign_up_or_its_trace_has_both(logger, known):
    lines = lines_of(logger, "json")
    logger.info("about one", extra=known)
    assert (lines.last["signup_id"], lines.last["trace_id"]) == (str(SIGNUP), SIGNUP.hex)


def test_a_line_about_many_has_lists(logger):
    lines = lines_of(logger, "json")
    logger.info("about two", extra={"trace_id": [SIGNUP.hex, OTHER.hex]})
    assert lines.last["signup_id"] == [str(SIGNUP), str(OTHER)]


def test_lines_of_libraries_have_the_ids_bound_to_the_current_work(logger):
    lines = lines_of(logger, "json")
    with bound_contextvars(signup_id=str(SIGNUP)):
        logger.info("from a library that knows of no sign-up")
    assert lines.last["trace_id"] == SIGNUP.hex
    logger.info("after it")
    assert "signup_id" not in lines.last


@pytest.mark.parametrize("kind", ["json", "console"])
def test_tickets_are_redacted_wherever_they_come_in(logger, kind):
    lines = lines_of(logger, kind)
    logger.info("GET %s", f"/signup/status/{TICKET}/")
    with bound_contextvars(group=f"/ws/signup/{TICKET}/"):
        logger.error("failed", exc_info=LookupError(f"/signup/status/{TICKET}"))
    text = "\n".join(lines.written)
    assert TICKET not in text
    assert text.count("[ticket]") == 3


SIGNED = "0199aa00:1vMpQx:" + "nobody-may_read-this" * 2 + "abc"


@pytest.mark.parametrize(
    "path",
    [
        f"/signup/confirm//{SIGNED}/", f"/signup/Confirm/{SIGNED}/", f"/signup/status/a/../{SIGNED}/",
        f"/SIGNUP//status/{SIGNED}", f"/signup%2Fstatus%2F{SIGNED}", f"/x?next={SIGNED.replace(':', '%3A')}&y",
        f"/x/{SIGNED.replace(':', '%3a')}", f"/nothing/{SIGNED}",
        "/password//MQ/czq1vx-0123456789abcdef0123456789abcdef/",
        "/Password/MQ/czq1vx-0123456789abcdef0123456789abcdef", "/x/MQ/czq1vx-0123456789abcdef0123456789abcdef/",
    ],
)  # fmt: skip
def test_a_ticket_is_redacted_however_its_path_is_written(logger, path):
    lines = lines_of(logger, "json")
    logger.warning("Not Found: %s", path)
    assert "[ticket]" in lines.written[0]
    assert "nobody-may" not in lines.written[0]
    assert "0123456789abcdef" not in lines.written[0]


def test_an_id_and_a_trace_are_no_tickets(logger):
    lines = lines_of(logger, "json")
    said = f"00-{SIGNUP.hex}-{SIGNUP.hex[:16]}-01 of {SIGNUP} at 12:30:05 http://127.0.0.1:8000/user/signups/{SIGNUP}"
    logger.info(said)
    assert lines.last["event"] == said


@pytest.mark.parametrize("kind", ["json", "console"])
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://auth:se%2Fcret@db:5432/auth", "postgres://auth:[password]@db:5432/auth"),
        ("rediss://:secret@redis/0", "rediss://:[password]@redis/0"),
        ("smtp+tls://me:secret@mail:587", "smtp+tls://me:[password]@mail:587"),
        ("https://host:8443/a@b", "https://host:8443/a@b"),
        ("http://host/x:y@z", "http://host/x:y@z"),
    ],
)
def test_a_password_in_a_url_is_redacted(logger, kind, url, shown):
    lines = lines_of(logger, kind)
    logger.error("can't reach %s", url, exc_info=LookupError(f"'{url}'"))
    text = "\n".join(lines.written)
    assert "secret" not in text.replace("se%2Fcret", "secret")
    assert text.count(shown) == 2


@pytest.mark.parametrize("kind", ["json", "console"])
def test_a_traceback_shows_no_local_variable_and_extras_of_others_are_left_out(logger, kind):
    lines = lines_of(logger, kind)

    def fails(password: str) -> None:
        raise LookupError(f"{len(password)} characters")

    try:
        fails("".join(PASSWORD))
    except LookupError:
        logger.exception("failed", extra={"request": PASSWORD})
    assert "LookupError: 28 characters" in lines.written[0]
    assert PASSWORD not in lines.written[0]


def test_the_error_that_ends_a_process_and_a_warning_are_json_too(tmp_path):
    program = (
        "import django, warnings; django.setup(); warnings.warn('take care', RuntimeWarning);"
        "raise LookupError('/signup/status/secret-ticket/')"
    )
    env = {"DJANGO_SETTINGS_MODULE": "signup_sync.settings", "DATA_DIR": str(tmp_path), "LOG_FORMAT": "json"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    warning, error = map(json.loads, done.stderr.splitlines())
    assert "take care" in warning["event"]
    assert error["level"] == "critical"
    assert error["exception"].endswith("LookupError: /signup/status/[ticket]/")
    assert done.returncode == 1


def test_another_format_is_refused_with_a_message(tmp_path):
    env = {"DJANGO_SETTINGS_MODULE": "signup_sync.settings", "DATA_DIR": str(tmp_path), "LOG_FORMAT": "xml"}
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"], env=env, capture_output=True, text=True, check=False
    )
    assert "LOG_FORMAT is 'xml': give it json or console." in done.stderr
