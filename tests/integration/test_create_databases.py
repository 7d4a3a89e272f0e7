"""deploy/create-databases.sh, which compose.yaml has PostgreSQL run."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tests.servers import PostgresqlServer
from tests.servers.process import ROOT

SERVICES = ("auth", "chat", "customer")

pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server of its own, as empty as the image's is when it runs the script."""
    with PostgresqlServer() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            for service in SERVICES:
                connection.execute(f'DROP DATABASE "{service}"')
        run_script(server)
        yield server


def run_script(server: PostgresqlServer) -> None:
    assert shutil.which("psql"), "psql comes with PostgreSQL's packages"
    passwords = {f"{service.upper()}_DATABASE_PASSWORD": f'it\'s \\ "{service}" $HOME' for service in SERVICES}
    connection = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
    subprocess.run(
        [ROOT / "deploy" / "create-databases.sh"], env=os.environ | passwords | connection, check=True, timeout=60
    )


def url(server: PostgresqlServer, *, role: str, database: str) -> str:
    return f"postgres://{role}@{server.address}/{database}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_makes_its_tables_in_its_own_database(server, service):
    with psycopg.connect(url(server, role=service, database=service)) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_into_no_other_database(server, service):
    for other in {*SERVICES} - {service}:
        with pytest.raises(psycopg.OperationalError, match=f'permission denied for database "{other}"'):
            psycopg.connect(url(server, role=service, database=other))


def test_each_role_has_a_password_and_no_privilege(server):
    with psycopg.connect(server.url("postgres")) as connection:
        rows = connection.execute(
            "SELECT rolname, rolpassword LIKE 'SCRAM%%', rolsuper, rolcreatedb, rolcreaterole FROM pg_authid "
            "WHERE rolname = ANY(%s) ORDER BY rolname",
            [list(SERVICES)],
        ).fetchall()
    assert rows == [(service, True, False, False, False) for service in SERVICES]
