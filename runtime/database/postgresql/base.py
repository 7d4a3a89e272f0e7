"""The database backend that the settings name as ENGINE for PostgreSQL."""

import select
from types import TracebackType
from typing import Any, Final, Self

from django.db.backends.postgresql import base, schema
from psycopg import Connection

# How long a migration's statement waits for a lock. All who come after it queue behind it, sign-ups too.
LOCK_TIMEOUT: Final = "'1s'"


class SchemaEditor(schema.DatabaseSchemaEditor):
    """Gives up rather than wait for a lock longer than LOCK_TIMEOUT; `manage.py migrate` tries again.

    Nobody queues behind CREATE INDEX CONCURRENTLY, which waits for every transaction in the database: it has all the
    time it needs.
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
    """Lends no connection that PostgreSQL has ended, and does not pause before it lends another.

    The pool's own check (CONN_HEALTH_CHECKS) costs a round trip for each loan, and a second for each connection that
    fails it: after an idle night, a restart or a failover every role's next query would be that late.
    """

    SchemaEditorClass = SchemaEditor

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        while True:
            connection = super().get_new_connection(conn_params)
            if not self.pool or not has_ended(connection):
                return connection
            # The pool makes another for one that comes back closed.
            connection.close()
            self.pool.putconn(connection)


def has_ended(connection: "Connection[Any]") -> bool:
    """Whether PostgreSQL has ended this idle connection. The answer takes no round trip: a server that was asked
    nothing says nothing, except that it ends."""
    if connection.closed:
        return True
    socket = select.poll()
    socket.register(connection.fileno(), select.POLLIN)
    return bool(socket.poll(0))
