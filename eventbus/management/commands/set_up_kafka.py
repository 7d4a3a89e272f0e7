"""`manage.py set_up_kafka`: create the topics and their partitions, and grant the services their rights."""

from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from eventbus.acls import apply_rights, read_rights
from eventbus.subscriptions import every_subscription
from eventbus.topics import TopicError, add_partitions, ensure_topics
from runtime.errors import TransientError


class Command(BaseCommand):
    help = (
        "Create missing topics, add partitions to topics that have fewer than KAFKA_PARTITIONS and, with --acls, grant "
        "each service its rights in Kafka. Run it before you start the other roles of a version, as a Kafka user who "
        "may create and alter topics and change ACLs (KAFKA_CLIENT_CONFIG). The other roles need none of these rights. "
        "Running it again is harmless."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--acls",
            type=Path,
            metavar="FILE",
            help="the rights of each service, like deploy/kafka-acls.toml; rights that it does not list are revoked",
        )

    def handle(self, *, acls: Path | None, **options: Any) -> None:
        topics = sorted({topic for each in every_subscription() for topic in each.every_topic})
        try:
            rights = read_rights(acls) if acls else {}
        except (OSError, ValueError, msgspec.ValidationError) as error:
            raise CommandError(f"The rights in {acls} can't be read: {error}") from error
        try:
            ensure_topics(topics)
            self.stdout.write(f"{len(topics)} topics exist")
            if grown := add_partitions(topics):
                self.stdout.write(f"{len(grown)} of them had fewer than {settings.KAFKA_PARTITIONS} partitions: added")
            if rights:
                added, revoked = apply_rights(rights)
                self.stdout.write(f"{len(rights)} users have their rights: {added} added, {revoked} revoked")
        except (TopicError, TransientError, KafkaException) as error:
            raise CommandError(_explained(error)) from error


def _explained(error: Exception) -> str:
    reason: KafkaError | None = error.args[0] if isinstance(error, KafkaException) else None
    if reason is None:
        return str(error)
    if reason.code() == KafkaError.SECURITY_DISABLED:
        return "Kafka has no authorizer: set authorizer.class.name on its brokers, or omit --acls."
    if reason.code() in (KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED):
        return "This Kafka user may not change topics or rights: KAFKA_CLIENT_CONFIG must name an administrator."
    return f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS} refuses: {reason.str()}"
