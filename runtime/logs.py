"""Log format: JSON for machines or plain lines for people, with the sign-up that a line is about (docs/adr/0020).

The code logs through the standard library, as all libraries do. structlog formats every line, so they look alike.
"""

import logging.config
import re
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Literal

import structlog
from structlog.types import EventDict

from runtime.text_length import shortened

LogFormat = Literal["json", "console"]

logger = logging.getLogger(__name__)

# First alternative: the path segment after these words is a ticket, or a token that opens an account, however the path
# is spelled. A backslash ends it if it is quoted in JSON.
# Second and third: anything with the form of our signatures, or of a password reset token, wherever it occurs.
_TICKET = re.compile(
    r"((?:/ws/+signup|/signup/+status|/signup/+confirm|/password/+[^/\s\"'\\]+)/+)[^/\s\"'\\]+"
    r"|(?<![^\s/\"'\\?&=])[^\s/\"'\\?&=]*(?::|%3a)[\w-]{43}|\b[0-9a-z]{6,7}-[0-9a-f]{32}\b",
    re.IGNORECASE | re.ASCII,
)
# Maximum characters of a line's text and of its traceback. Untrusted input can end up in error texts: a message of 1 MB
# must not become a line of 1 MB (docs/adr/0038).
TEXT_MAX: Final = 4_000
TRACEBACK_MAX: Final = 12_000
# user:password@ in any URL.
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@\"'\\]*:)[^/\s@\"'\\]+@")
# Members of `extra` that a line may contain. Others are dropped; Django, for one, passes whole requests there.
_EXTRA = ("signup_id", "trace_id", "actor", "subject", "address", "detail")


def configure(config: dict[str, Any]) -> None:
    """Configure logging (Django's LOGGING_CONFIG). Warnings are logged; in JSON mode, uncaught exceptions are too."""
    logging.config.dictConfig(config)
    logging.captureWarnings(True)
    if config["formatters"]["line"]["kind"] == "json":
        sys.excepthook = _log_uncaught


def formatter(kind: LogFormat) -> logging.Formatter:
    """Return a formatter that renders all records, of structlog and of the standard library, in this format."""
    # The console renderer's default traceback includes local variables, which may hold a password.
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
    """Add the trace id to a line with a sign-up id, and the reverse: they are the same 16 bytes. Both may be lists."""
    if "signup_id" in event:
        event["signup_id"] = _each(str, event["signup_id"])
        event.setdefault("trace_id", _each(_trace_id, event["signup_id"]))
    elif "trace_id" in event:
        event["signup_id"] = _each(_signup_id, event["trace_id"])
    return event


def shorten(_: object, __: str, event: EventDict) -> EventDict:
    """Truncate long texts. Of a traceback, keep the beginning and the end, which has the error."""
    event["event"] = shortened(str(event.get("event", "")), TEXT_MAX)
    if isinstance(traceback := event.get("exception"), str) and len(traceback) > TRACEBACK_MAX:
        half = TRACEBACK_MAX // 2
        event["exception"] = f"{traceback[:half]}… ({len(traceback)} characters) …{traceback[-half:]}"
    return event


def redact(_: object, __: str, line: object) -> str:
    """Replace tickets, tokens and passwords in URLs anywhere in the line, so that logs give no access to anything."""
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
        logger.critical("the process ends because of an uncaught error", exc_info=(kind, error, where))
