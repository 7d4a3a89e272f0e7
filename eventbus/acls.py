"""Who may do what in Kafka: rights of each service, read from a file and applied to the cluster (docs/adr/0048)."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from django.conf import settings

from eventbus.clients import client_config, prefixed

# Seconds that Kafka may take to store or to delete rights.
DONE_WITHIN: Final = 10.0
# In a filter it matches every name and host, which the library's own types leave out.
_ALL: Final[Any] = None


class Rights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Topics and consumer groups by what a Kafka user may do with them, without KAFKA_PREFIX."""

    read: list[str] = []
    write: list[str] = []
    join: list[str] = []
    watch: list[str] = []

    def bindings(self, user: str) -> set[AclBinding]:
        """The same as Kafka's own entries. To read or to write includes to describe."""
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
    """The rights of each user in a file like deploy/kafka-acls.toml.

    Raises OSError, ValueError (tomllib.TOMLDecodeError) and msgspec.ValidationError.
    """
    return msgspec.convert(tomllib.loads(path.read_text()), dict[str, Rights])


def apply_rights(rights: Mapping[str, Rights]) -> tuple[int, int]:
    """Gives each user these rights, and takes away others that it has on names with KAFKA_PREFIX; how many of each.

    Rights of users who are not named stay. Raises KafkaException, also where the cluster checks no rights at all.
    """
    admin = AdminClient(client_config({}))
    wanted = {binding for user, each in rights.items() for binding in each.bindings(user)}
    there = {each for user in rights for each in _bindings_of(admin, user) if _is_ours(each)}
    missing, superfluous = list(wanted - there), list(there - wanted)
    # New rights come first, so that a service that is running is never without one that it keeps.
    if missing:
        _wait_for(admin.create_acls(missing, request_timeout=DONE_WITHIN).values())
    if superfluous:
        filters = [_exactly(each) for each in superfluous]
        _wait_for(admin.delete_acls(filters, request_timeout=DONE_WITHIN).values())
    return len(missing), len(superfluous)


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


def _is_ours(binding: AclBinding) -> bool:
    """Another installation may share the cluster and its users, with a prefix of its own."""
    return binding.name.startswith(settings.KAFKA_PREFIX)


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
    """Raises what Kafka answered to the first that it refused."""
    for answer in answers:
        answer.result()
