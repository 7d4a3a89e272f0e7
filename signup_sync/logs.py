"""What every log line passes through."""

import logging
import re

# The ticket is the path segment after these prefixes.
_TICKET_IN_PATH = re.compile(r"(/ws/signup/|/signup/status/)[^/\s\"']+")


class RedactTickets(logging.Filter):
    """Replaces the tickets in a record's text, so that who reads a log can open no sign-up with it."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        redacted = _TICKET_IN_PATH.sub(r"\1[ticket]", message)
        if redacted != message:
            record.msg, record.args = redacted, None
        return True
