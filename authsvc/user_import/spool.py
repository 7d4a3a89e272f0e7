"""The valid records of an import on disk, in order and without duplicates, until the whole file has been checked."""

import sqlite3
from collections.abc import Iterator
from typing import Final, Self
from uuid import UUID

from authsvc.signups.registration import NewSignUp
from authsvc.user_import.checks import RejectedError
from runtime.equality import user_id_key

# KiB of its pages that are kept in memory.
_CACHE_KIB: Final = 32 * 1024
_TABLE: Final = """
CREATE TABLE record (
    line INTEGER PRIMARY KEY, id BLOB, user_id TEXT, user_id_key TEXT UNIQUE, email TEXT UNIQUE, user_name TEXT,
    role TEXT, password TEXT
)
"""


class Spool:
    """A temporary SQLite database without a name, which no other process can open and which is gone with this one."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute(_TABLE)
        self._database.execute("BEGIN")
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, line: int, new: NewSignUp) -> bool:
        """Add the record of this line; False if an earlier line is the same. Raise RejectedError if an earlier line has
        the same userId or email address, or the same fields with another hash."""
        key = user_id_key(new.user_id)
        values = (new.user_id, key, new.email, new.user_name, new.role, new.password)
        added = self._database.execute(
            "INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (line, new.signup_id.bytes, *values)
        )
        if added.rowcount:
            self.count += 1
            return True
        earlier, signup_id, other_key, password = self._database.execute(
            "SELECT line, id, user_id_key, password FROM record WHERE user_id_key = ? OR email = ?"
            " ORDER BY user_id_key <> ?",
            (key, new.email, key),
        ).fetchone()
        if signup_id != new.signup_id.bytes:
            same = "userId" if other_key == key else "email"
            raise RejectedError(f"{same}: Line {earlier} has the same one.")
        if password != new.password:
            raise RejectedError(f"passwordHash: Line {earlier} has the same user with another one.")
        return False

    def batches(self, size: int) -> Iterator[list[NewSignUp]]:
        """Yield the records in the file's order, at most `size` at a time."""
        rows = self._database.execute("SELECT id, user_id, email, user_name, role, password FROM record ORDER BY line")
        while batch := rows.fetchmany(size):
            yield [
                NewSignUp(
                    signup_id=UUID(bytes=signup_id),
                    user_id=user_id,
                    email=email,
                    user_name=user_name,
                    role=role,
                    password=password,
                    may_be_repeated=False,
                )
                for signup_id, user_id, email, user_name, role, password in batch
            ]
