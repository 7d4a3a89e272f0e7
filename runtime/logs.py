"""How a log line looks: JSON for machines or a line for people, with the sign-up that it is about (docs/adr/0020).

The code logs by the standard library, as every library does; structlog makes the lines, so all look alike.
"""

import logging.config
import re
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal

import structlog
from structlog.types import EventDict

from runtime.untrusted import shortened

Format = Literal["json", "console"]

logger = logging.getLogger(__name__)

# The ticket, or the token that opens an account, is the path segment after these words, however a stranger writes the
# path; a backslash ends it where it stands in JSON.
# After it: whatever is signed as ours are, or looks like the token of a reset, wherever it stands.
_TICKET = re.compile(
    r"((?:/ws/+signup|/signup/+status|/signup/+confirm|/password/+[^/\s\"'\\]+)/+)[^/\s\"'\\]+"
    r"|(?<![^\s/\"'\\?&=])[^\s/\"'\\?&=]*(?::|%3a)[\w-]{43}|\b[0-9a-z]{6,7}-[0-9a-f]{32}\b",
    re.IGNORECASE | re.ASCII,
)
# Characters of a line's text and of its traceback. Strangers choose what some errors say: a message of 1 MB must not
# become a line of 1 MB (docs/adr/0038).
TEXT_MAX: Final = 4_000
TRACEBACK_MAX: Final = 12_000
# user:password@ in a URL, of whatever server.
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@\"'\\]*:)[^/\s@\"'\\]+@")
# What a line may say beside its text, from `extra`. Django, for one, puts whole requests there.
_EXTRA = ("signup_id", "trace_id", "actor", "subject", "address", "detail")


def configure(config: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG. What ends the process is a line as well, where lines are JSON, and so is a warning."""
    logging.config.dictConfig(config)
    logging.captureWarnings(True)
    if config["formatters"]["line"]["kind"] == "json":
        sys.excepthook = _log_uncaught


def formatter(kind: Format) -> logging.Formatter:
    """One that makes lines of this kind out of everybody's records."""
    # Console's own way to show a traceback would show the local variables too, and in one of them is a password.
    plain = structlog.dev.plain_traceback
    rendered: structlog.types.Processor = structlog.processors.JSONRenderer(default=str)
    if kind == "console":
        rendered = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ExtraAdder(allow=_EXTRA),
            name_sign_up_and_trace,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            shorten,
            rendered,
            redact,
        ],
    )


def name_sign_up_and_trace(_: object, __: str, event: EventDict) -> EventDict:
    """A sign-up's id and its trace's are the same 16 bytes: a line that knows one says both. Of many, it has lists."""
    if "signup_id" in event:
        event["signup_id"] = _each(str, event["signup_id"])
        event.setdefault("trace_id", _each(_trace_id, event["signup_id"]))
    elif "trace_id" in event:
        event["signup_id"] = _each(_signup_id, event["trace_id"])
    return event


def shorten(_: object, __: str, event: EventDict) -> EventDict:
    """Cuts what is long. Of a traceback the end is kept, which says what the error was, and its beginning."""
    event["event"] = shortened(str(event.get("event", "")), TEXT_MAX)
    if isinstance(traceback := event.get("exception"), str) and len(traceback) > TRACEBACK_MAX:
        half = TRACEBACK_MAX // 2
        event["exception"] = f"{traceback[:half]}… ({len(traceback)} characters) …{traceback[-half:]}"
    return event


def redact(_: object, __: str, line: object) -> str:
    """The line without tickets and without passwords in URLs, whatever part of it they came in by: who reads a log can
    open no sign-up and no server with it."""
    return _PASSWORD_IN_URL.sub(r"\1[password]@", _TICKET.sub(r"\1[ticket]", str(line)))


def _each(convert: Callable[[Any], str], value: object) -> str | list[str]:
    return [convert(each) for each in value] if isinstance(value, list | tuple) else convert(value)


def _trace_id(signup_id: str) -> str:
    return signup_id.replace("-", "")


def _signup_id(trace_id: str) -> str:
    return "-".join((trace_id[:8], trace_id[8:12], trace_id[12:16], trace_id[16:20], trace_id[20:]))


def _log_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
    else:
        logger.critical("the process ends by an error", exc_info=(kind, error, where))
