"""The file of rejected records, in the format of the import file, so that it can be corrected and imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from authsvc.user_import.formats import Format


class RejectsError(Exception):
    """The file of rejected records can't be created or written."""


class Rejects:
    """Creates its file with the first rejected record."""

    def __init__(self, path: Path, format_: Format) -> None:
        self._path = path
        self._format = format_
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        """The file's path, or "" while there is none."""
        return self._file.name if self._file else ""

    def add(self, source: Any, reason: str) -> None:
        """Write a record as it was read, with the reason. Raise RejectsError."""
        text = self._format.rejected(source, reason)
        if self._file is None:
            self._file = self._create()
            text = self._format.header() + text
        with self._writing():
            self._file.write(text)

    def close(self) -> None:
        """Write the last records. Raise RejectsError."""
        if self._file:
            with self._writing():
                self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RejectsError(f"{self.name} can't be written: {error.strerror}.") from error

    def _create(self) -> TextIO:
        """Create the file; if it exists, one with the next free number: somebody may be correcting an earlier one."""
        for number in count(1):
            path = self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")
            try:
                with suppress(FileExistsError):
                    return open(path, "x", encoding="utf-8", newline="", opener=_open_private)
            except OSError as error:
                raise RejectsError(f"{path} can't be created: {error.strerror}.") from error
        raise AssertionError


def _open_private(path: str, flags: int) -> int:
    """Open the file for its owner only: it may contain password hashes."""
    return os.open(path, flags, 0o600)
