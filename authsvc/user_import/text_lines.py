"""Read a file of any size as lines of UTF-8, each of bounded length."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from authsvc.api.signup_requests import BODY_MAX

# Bytes of a line, without its end. `POST /user` accepts no more for one user either.
LINE_MAX: Final = BODY_MAX
# Characters of a longer line that are kept, so that it can be recognised.
LINE_SHOWN: Final = 200
# UTF-32 comes first: its little-endian mark begins like that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class UnreadableFileError(Exception):
    """The file as a whole can't be imported, for the reason in the text."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. `text` is only the beginning if the line has more than LINE_MAX bytes."""

    number: int
    text: str
    is_too_long: bool = False


class LineReader:
    """Iterates over the lines of a file that is open in binary mode. At most one line is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Bytes that have been read.
        self.position = 0

    def __iter__(self) -> Iterator[Line]:
        """Raise UnreadableFileError at the first line that isn't UTF-8, or if lines end with carriage returns only."""
        number = 0
        while raw := self._read(LINE_MAX + 2):
            number += 1
            if number == 1:
                raw = _without_mark(raw)
            text = raw.rstrip(b"\r\n")
            if number == 1 and b"\r" in text:
                raise UnreadableFileError(
                    "The lines end with carriage returns only. Convert the file, for example: "
                    "tr '\\r' '\\n' < FILE > FILE.lines"
                )
            if len(text) > LINE_MAX:
                while raw and not raw.endswith(b"\n"):
                    raw = self._read(LINE_MAX)
                yield Line(number, text[: LINE_SHOWN * 4].decode(errors="replace")[:LINE_SHOWN], is_too_long=True)
                continue
            try:
                yield Line(number, text.decode())
            except UnicodeDecodeError:
                raise _not_utf8(f"Line {number}", "WINDOWS-1252 (or CP949 for Korean)") from None

    def _read(self, most: int) -> bytes:
        raw = self._file.readline(most)
        self.position += len(raw)
        return raw


def _without_mark(raw: bytes) -> bytes:
    """Return the first line without UTF-8's byte order mark. Raise UnreadableFileError if it is in UTF-16 or UTF-32."""
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            raise _not_utf8("The file", encoding)
    if b"\x00" in raw:
        raise _not_utf8("Line 1", "UTF-16")
    return raw.removeprefix(codecs.BOM_UTF8)


def _not_utf8(what: str, encoding: str) -> UnreadableFileError:
    name, _, other = encoding.partition(" ")
    return UnreadableFileError(
        f"{what} is not UTF-8. Save the file as UTF-8 or convert it, for example: "
        f"iconv -f {name} -t UTF-8 FILE > FILE.utf8{f' {other}' if other else ''}"
    )
