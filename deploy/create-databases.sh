#!/bin/sh
# Creates a database, an owner role and a run-time role for each service. compose.yaml runs this before each migration. The
# script is idempotent: an installation of an earlier version (in which the service's role owned everything) gets the same
# rights, and a changed password takes effect.
#
#   <service>_owner  owns the database and its tables. Only migrations log in as this role.
#   <service>        reads and writes rows. It can't create, alter, truncate or drop tables, nor connect to other databases.
#
# It needs psql with a superuser (PGHOST, PGUSER, PGPASSWORD), and <SERVICE>_DATABASE_PASSWORD and <SERVICE>_OWNER_PASSWORD
# for each service. SERVICES names the services; by default, each that has an owner's password.
set -eu

# PUBLIC, which every role belongs to, may connect to any database unless that is revoked.
psql -v ON_ERROR_STOP=1 -q -d postgres <<'SQL'
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
SQL

: "${SERVICES:=$(awk 'BEGIN { for (name in ENVIRON) if (sub(/_OWNER_PASSWORD$/, "", name)) print tolower(name) }')}"
for service in $SERVICES; do
    upper=$(echo "$service" | tr '[:lower:]' '[:upper:]')
    # psql quotes its variables, so a password may contain any character here. Passwords come from the environment, because
    # every process on the host can read command lines.
    for kind in DATABASE OWNER; do
        # PostgreSQL would take an empty password as none, and lock the role out.
        [ -n "$(printenv "${upper}_${kind}_PASSWORD")" ] || { echo "${upper}_${kind}_PASSWORD is not set." >&2; exit 1; }
    done
    SERVICE_PASSWORD=$(printenv "${upper}_DATABASE_PASSWORD") OWNER_PASSWORD=$(printenv "${upper}_OWNER_PASSWORD") \
        psql -v ON_ERROR_STOP=1 -q -d postgres -v service="$service" -v owner="${service}_owner" <<'SQL'
\getenv service_password SERVICE_PASSWORD
\getenv owner_password OWNER_PASSWORD
SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY[:'service', :'owner']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE :"service" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'service_password';
ALTER ROLE :"owner" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';

SELECT format('CREATE DATABASE %I OWNER %I', :'service', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'service') \gexec
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;

\connect :"service"
BEGIN;
-- Tables, sequences and the database itself, if an earlier version made the service's role their owner.
REASSIGN OWNED BY :"service" TO :"owner";
ALTER DATABASE :"service" OWNER TO :"owner";
REVOKE ALL ON DATABASE :"service" FROM :"service";
GRANT CONNECT ON DATABASE :"service" TO :"service";

-- Before PostgreSQL 15, PUBLIC could create tables in this schema.
REVOKE ALL ON SCHEMA public FROM PUBLIC, :"service";
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
GRANT USAGE ON SCHEMA public TO :"service";

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM :"service";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"service";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO :"service";
-- The same rights on tables and sequences of later migrations.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"service";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO :"service";
COMMIT;
SQL
done
