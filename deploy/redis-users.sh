#!/bin/sh
# Starts the Redis or Valkey that the arguments name, with these users and no other:
#
#   auth         web, auth's consumer, relay, dead letters, purge: every key, but nothing that concerns the server
#   participant  chat and customer: they report that they run
#
# Needs REDIS_AUTH_PASSWORD and REDIS_PARTICIPANT_PASSWORD, of letters and digits.
set -eu
umask 077
users=$(mktemp)
cat >"$users" <<ACL
user default off
user auth on >${REDIS_AUTH_PASSWORD:?} ~* &* +@all -@admin -@dangerous
user participant on >${REDIS_PARTICIPANT_PASSWORD:?} ~instance:* ~instances +@connection -@dangerous +set +del +expire +zadd +zrem
ACL
exec "$@" --aclfile "$users"
