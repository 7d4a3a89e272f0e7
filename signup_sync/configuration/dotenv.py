"""Reads `.env` files as people write them: comments, quotes, `export`, spaces around "=", CRLF, a byte order mark.

A line that can't be parsed is refused by its number and not quoted, because it may contain a password. The rules are
those of Docker Compose, which reads the same file, but without substitution: a "$" is a "$".
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.core.exceptions import ImproperlyConfigured

_ASSIGNMENT: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.ASCII)
# A quoted value, optionally followed by a comment. In double quotes, a backslash may precede any character.
_QUOTED: Final = re.compile(r"""(?:'(?P<plain>[^']*)'|"(?P<escaped>(?:[^"\\]|\\.)*)")\s*(?:#.*)?""")
_COMMENT: Final = re.compile(r"\s#.*")
# Escape sequences in double quotes; before any other character, the backslash is kept.
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read_dotenv(path: Path) -> dict[str, str]:
    """Return the variables of the file; if a name occurs twice, the last one wins. Raises ImproperlyConfigured."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImproperlyConfigured(f"{path} can't be read: {error.strerror}.") from None
    return dict(_assignments(content.removeprefix(b"\xef\xbb\xbf"), path))


def _assignments(content: bytes, path: Path) -> Iterator[tuple[str, str]]:
    for number, raw in enumerate(content.splitlines(), 1):
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            raise _refusal(path, number, "is not UTF-8: save the file as UTF-8") from None
        if not line or line.startswith("#"):
            continue
        found = _ASSIGNMENT.fullmatch(line)
        if not found or "\0" in line:
            raise _refusal(path, number, "is not a setting: write NAME=value, or # before a comment")
        name, value = found.groups()
        if value.strip()[:1] not in ("'", '"'):
            yield name, _COMMENT.sub("", value).strip()
        elif quoted := _QUOTED.fullmatch(value.strip()):
            yield name, _unescaped(quoted["escaped"]) if quoted["plain"] is None else quoted["plain"]
        else:
            raise _refusal(path, number, f"({name}) begins with a quote and must end with the same one, on one line")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), text)


def _refusal(path: Path, number: int, reason: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"Line {number} of {path} {reason}.")
