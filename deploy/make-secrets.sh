#!/bin/sh
# Adds to .env a random value for each secret that compose.yaml needs and .env lacks; what is there stays as it is.
set -eu
cd "$(dirname "$0")/.."
umask 077
touch .env
grep -oE '\$\{[A-Z_]+_(KEY|PASSWORD):\?' compose.yaml | tr -d '${:?' | sort -u | while read -r name; do
    grep -q "^$name=" .env || echo "$name=$(openssl rand -hex 32)" >>.env
done
