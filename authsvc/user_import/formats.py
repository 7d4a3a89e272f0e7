"""The two formats of an import file, CSV and JSON lines: reading its records and writing rejected ones.

A rejected record is written as it was read, with a `reason` first, which a later import ignores.
"""

import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias

from authsvc.api.signup_requests import parse_json, shown_name
from authsvc.user_import.text_lines import LINE_MAX, Line, UnreadableFileError

REQUIRED: Final = ("userId", "userName", "email")
OPTIONAL: Final = ("role", "passwordHash")
REASON: Final = "reason"
COLUMNS: Final = (*REQUIRED, *OPTIONAL)


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """One user of the file, as written there: its fields by name, or the fault that makes them unreadable."""

    line: int
    # Fields by name; empty if there is a fault.
    fields: Mapping[str, Any]
    # The original content, which a file of rejected records repeats: the cells of a CSV record, or the member `line`
    # of an unreadable one.
    source: Any
    fault: str = ""


def format_of(lines: Iterable[Line]) -> "Format":
    """Recognise the format by the first line that isn't blank, and read that. Raise UnreadableFileError."""
    rest = iter(lines)
    first = next((line for line in rest if line.is_too_long or line.text.strip()), None)
    if first is None:
        raise UnreadableFileError("The file is empty.")
    begin = first.text.lstrip()[:1]
    if begin == "{":
        return JsonLines(chain([first], rest))
    if begin == "[":
        raise UnreadableFileError("The file is a JSON array. Write one object per line, for example: jq -c '.[]' FILE")
    return Csv(first, rest)


class JsonLines:
    """One JSON object per line."""

    suffix = "jsonl"

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines

    def records(self) -> Iterator[ImportRecord]:
        """Read the rest of the file. Raise UnreadableFileError."""
        for line in self._lines:
            if line.is_too_long:
                yield ImportRecord(line.number, {}, {"line": line.text}, _too_long())
            elif line.text.strip():
                yield self._record(line)

    def _record(self, line: Line) -> ImportRecord:
        try:
            found = parse_json(line.text)
        except (ValueError, RecursionError) as error:
            return ImportRecord(line.number, {}, {"line": line.text}, f"This is not JSON: {error}")
        if not isinstance(found, dict):
            return ImportRecord(line.number, {}, {"line": line.text}, "This is not a JSON object.")
        found.pop(REASON, None)
        # Such a value is invalid anyway. It may be too deep to be written again, or a number that JSON can't express.
        is_plain = not any(isinstance(value, dict | list | float) for value in found.values())
        return ImportRecord(line.number, found, found if is_plain else {"line": line.text})

    def header(self) -> str:
        """Return the lines that begin a file of rejected records."""
        return ""

    def rejected(self, source: Any, reason: str) -> str:
        """Return a rejected record's lines."""
        # Lone surrogates, which UTF-8 can't express, stay escaped.
        return json.dumps({REASON: reason, **source}) + "\n"

    def source_of(self, fields: Mapping[str, str]) -> Any:
        """Return these fields as the source of a record."""
        return {name: value for name, value in fields.items() if value}


class Csv:
    """Comma-separated values (RFC 4180) whose first line names the columns, in any order. The methods are those of
    JsonLines."""

    suffix = "csv"

    def __init__(self, first: Line, rest: Iterator[Line]) -> None:
        self._rest = rest
        # Lines that have been read and not yet used.
        self._ahead: deque[Line] = deque()
        self._columns = _columns_of(first)

    def records(self) -> Iterator[ImportRecord]:
        while line := self._next():
            if line.is_too_long:
                yield ImportRecord(line.number, {}, [line.text], _too_long())
            elif line.text.strip():
                yield self._record(line)

    def header(self) -> str:
        return _csv_line([REASON, *(name for name in self._columns if name != REASON)])

    def rejected(self, source: Any, reason: str) -> str:
        return _csv_line([reason, *source])

    def source_of(self, fields: Mapping[str, str]) -> Any:
        return [fields.get(name, "") for name in self._columns if name != REASON]

    def _next(self) -> Line | None:
        return self._ahead.popleft() if self._ahead else next(self._rest, None)

    def _record(self, line: Line) -> ImportRecord:
        if not (following := self._following(line)):
            return self._parsed(line.number, line.text)
        record = self._parsed(line.number, "\n".join([line.text, *(each.text for each in following)]))
        if record.fault:
            # Rather a stray quotation mark than a record of several lines: don't reject the other lines with this one.
            self._ahead.extendleft(reversed(following))
            return self._parsed(line.number, line.text)
        return record

    def _following(self, line: Line) -> list[Line]:
        """Read the lines that belong to the same record, because a quoted field may contain line breaks. There are none
        if no quotation mark closes that field within LINE_MAX."""
        following = list[Line]()
        size, quotes = len(line.text), line.text.count('"')
        while quotes % 2:
            if (after := self._next()) is not None:
                following.append(after)
            if after is None or after.is_too_long or (size := size + len(after.text) + 1) > LINE_MAX:
                self._ahead.extendleft(reversed(following))
                return []
            quotes += after.text.count('"')
        return following

    def _parsed(self, number: int, text: str) -> ImportRecord:
        try:
            [cells] = csv.reader([text], strict=True)
        except csv.Error as error:
            fault = "a quotation mark is not closed" if text.count('"') % 2 else str(error).partition(" - ")[0]
            return ImportRecord(number, {}, [text], f"This is not CSV: {fault}.")
        source = [cell for index, cell in enumerate(cells) if self._columns[index : index + 1] != [REASON]]
        if len(cells) != len(self._columns):
            named = [name for name in self._columns if name != REASON]
            fault = f"This line has {len(source)} columns, but the first line names {len(named)}."
            return ImportRecord(number, {}, source, fault)
        fields = dict(zip(self._columns, cells, strict=True))
        fields.pop(REASON, None)
        return ImportRecord(number, fields, source)


Format: TypeAlias = JsonLines | Csv


def _columns_of(line: Line) -> list[str]:
    """Return the column names. Raise UnreadableFileError if some are missing, unknown or repeated."""
    try:
        [columns] = csv.reader([line.text], strict=True)
    except csv.Error as error:
        raise UnreadableFileError(f"Line {line.number} does not name the columns: {error}.") from None
    columns = [name.strip() for name in columns]
    known = (*COLUMNS, REASON)
    faults = [
        ("lacks", [name for name in REQUIRED if name not in columns]),
        ("repeats", sorted({name for name in columns if columns.count(name) > 1})),
        ("has the unknown", [name for name in columns if name not in known]),
    ]
    said = [f"{verb} {', '.join(shown_name(name) or 'empty' for name in names[:5])}" for verb, names in faults if names]
    if said or line.is_too_long:
        raise UnreadableFileError(
            f"Line {line.number} must name the columns, separated by commas: {', '.join(REQUIRED)} and optionally "
            f"{', '.join(OPTIONAL)}. It {', '.join(said) or 'is too long'}."
        )
    return columns


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _too_long() -> str:
    return f"This line has more than {LINE_MAX} bytes."
