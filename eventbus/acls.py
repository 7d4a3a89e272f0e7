"""Kafka ACLs: the rights of each service, read from a file and applied to the cluster (docs/adr/0048)."""

import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from django.conf import settings

from eventbus.clients import client_config, prefixed
from runtime.errors import TransientError

# Timeout in seconds for storing or deleting ACLs.
DONE_WITHIN: Final = 10.0
# Timeout in seconds until a broker enforces ACLs that the controller has stored. It first applies everything that the
# controller stored before, such as new topics; on a machine with a load of 10 on two cores, that took 19 s.
ENFORCED_WITHIN: Final = 60.0
_EACH_PARTICIPANT: Final = "{participant}"
_EACH_SERVER: Final = "{scim}"
# Matches every name and host in a filter. The library's type hints do not allow it.
_ALL: Final[Any] = None


class Rights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Topics that a Kafka user may read and write, and groups that it may join and watch; without KAFKA_PREFIX."""

    read: list[str] = []
    write: list[str] = []
    join: list[str] = []
    watch: list[str] = []

    def bindings(self, user: str) -> set[AclBinding]:
        """Return these rights as Kafka's ACL bindings. Read and write imply describe."""
        named = [
            (ResourceType.TOPIC, AclOperation.READ, self.read),
            (ResourceType.TOPIC, AclOperation.WRITE, self.write),
            (ResourceType.GROUP, AclOperation.READ, self.join),
            (ResourceType.GROUP, AclOperation.DESCRIBE, self.watch),
        ]
        return {
            AclBinding(
                kind,
                prefixed(name),
                ResourcePatternType.LITERAL,
                f"User:{user}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for kind, operation, names in named
            for name in names
        }


def read_rights(path: Path) -> Mapping[str, Rights]:
    """Read the rights of each user from a file like deploy/kafka-acls.toml.

    A name with `{scim}` stands for one name per server of SCIM_SERVERS, a name with `{participant}` for one name per
    participant; in the table of the user `{participant}`, it stands for that participant. Raises OSError, ValueError
    (also tomllib.TOMLDecodeError), such as for a user with two tables, and msgspec.ValidationError.
    """
    rights = msgspec.convert(tomllib.loads(path.read_text()), dict[str, Rights])
    expanded: dict[str, Rights] = {}
    for table, each in rights.items():
        for user, own in _users(table):
            if user in expanded:
                raise ValueError(f"the user {user} has two tables, {_EACH_PARTICIPANT} and its own")
            fields = msgspec.structs.asdict(each).items()
            expanded[user] = Rights(**{field: _expanded(names, own) for field, names in fields})
    return expanded


def _users(table: str) -> Iterable[tuple[str, Sequence[str]]]:
    """Return the users of a table, each with the participants for which `{participant}` stands in it."""
    if table == _EACH_PARTICIPANT:
        return [(participant, [participant]) for participant in settings.PARTICIPANTS]
    return [(table, settings.PARTICIPANTS)]


def _expanded(names: Iterable[str], participants: Sequence[str]) -> list[str]:
    meanings = {_EACH_PARTICIPANT: participants, _EACH_SERVER: [*settings.SCIM_SERVERS]}
    expanded = list(names)
    for word, meant in meanings.items():
        expanded = [name.replace(word, each) for name in expanded for each in (meant if word in name else ("",))]
    return expanded


def apply_rights(rights: Mapping[str, Rights]) -> tuple[int, int]:
    """Grant each user these rights and revoke its other rights on names with KAFKA_PREFIX.

    Return how many were granted and how many revoked. Users who are not listed keep their rights. Raises
    KafkaException, for example if the cluster has no authorizer, and TransientError if a broker does not enforce them
    in time.
    """
    admin = AdminClient(client_config({}))
    wanted = {binding for user, each in rights.items() for binding in each.bindings(user)}
    found = {each for user in rights for each in _bindings_of(admin, user)}
    # Another installation may share the cluster under a different prefix.
    there = {each for each in found if each.name.startswith(settings.KAFKA_PREFIX)}
    missing, superfluous = list(wanted - there), list(there - wanted)
    # Grant before revoking, so that a running service never lacks a right that it keeps.
    if missing:
        _wait_for(admin.create_acls(missing, request_timeout=DONE_WITHIN).values())
        _wait_until_enforced(admin, rights, wanted)
    if superfluous:
        filters = [_exactly(each) for each in superfluous]
        _wait_for(admin.delete_acls(filters, request_timeout=DONE_WITHIN).values())
    return len(missing), len(superfluous)


def _wait_until_enforced(admin: AdminClient, users: Iterable[str], wanted: Set[AclBinding]) -> None:
    """Wait until the broker that answers enforces these ACLs: it describes those that it enforces."""
    deadline = time.monotonic() + ENFORCED_WITHIN
    while not wanted <= {each for user in users for each in _bindings_of(admin, user)}:
        if time.monotonic() > deadline:
            raise TransientError(f"Kafka stored the rights, but did not enforce them within {ENFORCED_WITHIN:.0f} s.")
        time.sleep(0.1)


def _bindings_of(admin: AdminClient, user: str) -> list[AclBinding]:
    everything = AclBindingFilter(
        ResourceType.ANY,
        _ALL,
        ResourcePatternType.ANY,
        f"User:{user}",
        _ALL,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    found: list[AclBinding] = admin.describe_acls(everything, request_timeout=DONE_WITHIN).result()
    return found


def _exactly(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def _wait_for(answers: Iterable[Any]) -> None:
    """Wait for every answer; raise the error of the first request that Kafka refused."""
    for answer in answers:
        answer.result()
