#!/bin/sh
# Starts the gateway in its container. The proxy that terminates TLS usually runs on the Docker host, so its requests come
# from the host's address in the container's network. Docker chooses that address; it is the gateway of the default route.
# Set TRUSTED_PROXIES to trust other proxies instead.
set -eu
if [ -z "${TRUSTED_PROXIES:-}" ]; then
    # The address is in hexadecimal, with the last byte first.
    route=$(awk '$2 == "00000000" { print $3; exit }' /proc/net/route)
    # shellcheck disable=SC2046 # four words
    TRUSTED_PROXIES=$(printf '%d.%d.%d.%d' $(echo "$route" | sed 's/\(..\)\(..\)\(..\)\(..\)/0x\4 0x\3 0x\2 0x\1/'))
fi
export TRUSTED_PROXIES
exec caddy run --config /etc/caddy/Caddyfile --adapter caddyfile
