"""The backend's classes. Django imports this module for the setting ENGINE."""

import select
from types import TracebackType
from typing import Any, Final, Self

from django.db.backends.postgresql import base, schema
from psycopg import Connection

# The longest wait of a migration's statement for a lock. Later statements queue behind it, including those of
# sign-ups.
LOCK_TIMEOUT: Final = "'1s'"


class SchemaEditor(schema.DatabaseSchemaEditor):
    """Fail rather than wait for a lock longer than LOCK_TIMEOUT; `manage.py migrate` retries.

    CREATE INDEX CONCURRENTLY has no timeout: it waits for every transaction in the database, but nothing queues behind
    it.
    """

    def __enter__(self) -> Self:
        self._wait_for_locks(LOCK_TIMEOUT)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            if not self.connection.in_atomic_block and self.connection.is_usable():
                self._wait_for_locks("DEFAULT")

    def execute(self, sql: Any, params: Any = ()) -> None:
        if "CONCURRENTLY" not in str(sql):
            super().execute(sql, params)
            return
        self._wait_for_locks("0")
        try:
            super().execute(sql, params)
        finally:
            self._wait_for_locks(LOCK_TIMEOUT)

    def _wait_for_locks(self, how_long: str) -> None:
        if not self.collect_sql:
            with self.connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {how_long}")


class DatabaseWrapper(base.DatabaseWrapper):
    """Never hand out a connection that PostgreSQL has ended, and replace it without delay.

    The pool's own check (CONN_HEALTH_CHECKS) costs a round trip per checkout, and a second per connection that fails
    it: after an idle night, a restart or a failover, every role's next query would be that late.
    """

    SchemaEditorClass = SchemaEditor

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        while True:
            connection = super().get_new_connection(conn_params)
            if not self.pool or not has_ended(connection):
                return connection
            # The pool replaces a connection that is returned closed.
            connection.close()
            self.pool.putconn(connection)


def has_ended(connection: "Connection[Any]") -> bool:
    """Whether PostgreSQL has ended this idle connection.

    This takes no round trip: the socket of an idle connection becomes readable only when the server ends it."""
    if connection.closed:
        return True
    socket = select.poll()
    socket.register(connection.fileno(), select.POLLIN)
    return bool(socket.poll(0))
