#!/bin/sh
# PostgreSQL's image runs this once, over an empty data directory: a role and a database for each service, and no way
# into another's.
set -eu

for service in auth chat customer; do
    variable=$(echo "$service" | tr '[:lower:]' '[:upper:]')_DATABASE_PASSWORD
    # Given as a variable of psql's, which quotes it: a password may hold any character here.
    psql -v ON_ERROR_STOP=1 -v service="$service" -v password="$(printenv "$variable")" <<'SQL'
CREATE ROLE :"service" LOGIN PASSWORD :'password';
CREATE DATABASE :"service" OWNER :"service";
REVOKE CONNECT ON DATABASE :"service" FROM PUBLIC;
SQL
done
