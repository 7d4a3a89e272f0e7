"""The database backend that the settings name as ENGINE for PostgreSQL."""

import select
from typing import Any

from django.db.backends.postgresql import base
from psycopg import Connection


class DatabaseWrapper(base.DatabaseWrapper):
    """Lends no connection that PostgreSQL has ended, and does not pause before it lends another.

    The pool's own check (CONN_HEALTH_CHECKS) costs a round trip for each loan, and a second for each connection that
    fails it: after an idle night, a restart or a failover every role's next query would be that late.
    """

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
