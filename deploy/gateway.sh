#!/bin/sh
# Starts the gateway in its container. What ends TLS in front of it mostly runs on the Docker host, whose requests come
# from the address that the host has in the container's network. Docker chooses that address, so it is looked up: it is
# the default route's. TRUSTED_PROXIES names something else instead.
set -eu
if [ -z "${TRUSTED_PROXIES:-}" ]; then
    # In hexadecimal, the last byte first.
    route=$(awk '$2 == "00000000" { print $3; exit }' /proc/net/route)
    # shellcheck disable=SC2046 # four words
    TRUSTED_PROXIES=$(printf '%d.%d.%d.%d' $(echo "$route" | sed 's/\(..\)\(..\)\(..\)\(..\)/0x\4 0x\3 0x\2 0x\1/'))
fi
export TRUSTED_PROXIES
exec caddy run --config /etc/caddy/Caddyfile --adapter caddyfile
