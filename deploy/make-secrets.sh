#!/bin/sh
# Adds a random value to .env for each secret that compose.yaml requires and .env lacks. Existing values stay unchanged.
set -eu
cd "$(dirname "$0")/.."
umask 077
touch .env
# An editor may have left the last line without its end.
[ -z "$(tail -c 1 .env)" ] || echo >>.env
grep -oE '\$\{[A-Z0-9_]+_(KEY|PASSWORD):\?' compose.yaml | tr -d '${:?' | sort -u | while read -r name; do
    grep -qE "^[[:space:]]*(export[[:space:]]+)?$name[[:space:]]*=" .env || echo "$name=$(openssl rand -hex 32)" >>.env
done
