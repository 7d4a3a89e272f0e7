"""`manage.py consume_events <service>`: one service's reading of Kafka."""

import logging
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string

from eventbus.consumer import BatchConsumer
from eventbus.messages import Subscription
from eventbus.roles import check_database, running_role
from eventbus.topics import TopicError, ensure_topics

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Reads the events that a service subscribes to, has them handled in batches, publishes its answers, and "
        "commits the offsets only then. Makes the topics that are missing. Waits for Kafka and the database if they "
        "are not there yet. Any number of these may run for a service: they share its partitions. Ends on SIGTERM "
        "within 5 s."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "service",
            choices=list(settings.EVENT_CONSUMERS),
            help="The service whose events are read; EVENT_CONSUMERS in the settings says what each runs.",
        )

    def handle(self, *, service: str, **options: Any) -> None:
        path = settings.EVENT_CONSUMERS[service]
        subscription: Subscription = import_string(path)
        app_label = path.partition(".")[0]
        kafka = f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS}"
        with running_role(f"consumer of {service}") as role:
            if not role.wait_for("its database", partial(check_database, app_label)):
                return
            try:
                is_there = role.wait_for(kafka, partial(ensure_topics, subscription.topics))
            except TopicError as error:
                raise CommandError(str(error)) from error
            if is_there:
                logger.info("consuming %s as group %s", subscription.topic, subscription.group)
                BatchConsumer(subscription, heartbeat=role.heartbeat).run(role.stop)
