#!/bin/sh
# Starts the Redis or Valkey server given as arguments, with only these users:
#
#   auth         web, auth's consumer, relay, dead letters, purge: every key, but no server commands
#   participant  every participant and the SCIM services: they only register their processes
#
# It needs REDIS_AUTH_PASSWORD and REDIS_PARTICIPANT_PASSWORD, which may contain letters and digits.
set -eu
umask 077
users=$(mktemp)
cat >"$users" <<ACL
user default off
user auth on >${REDIS_AUTH_PASSWORD:?} ~* &* +@all -@admin -@dangerous
user participant on >${REDIS_PARTICIPANT_PASSWORD:?} ~instance:* ~instances +@connection -@dangerous +set +del +expire +zadd +zrem
ACL
exec "$@" --aclfile "$users"
