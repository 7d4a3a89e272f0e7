"""`manage.py index_events`: index the events of all topics into OpenSearch."""

import logging
from functools import partial
from typing import Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from eventbus.consumer import BatchConsumer
from eventbus.group_member import run_reader
from eventbus.topics import wait_for_topics
from eventsearch.indexing import GROUP, Indexer, subscription
from eventsearch.upkeep import upkeep
from runtime.processes.instances import CONSUMER
from runtime.processes.roles import START_CHECKS, running_role

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Index sign-ups, changes, removals and dead letters into OpenSearch (OPENSEARCH_URL), without personal data, "
        "and delete the indices of days older than OPENSEARCH_RETENTION_DAYS. Waits until OpenSearch and Kafka are "
        "available; while OpenSearch is down, events wait in Kafka. Any number of instances may run: they share the "
        "partitions. Stops within 5 s after SIGTERM."
    )
    requires_system_checks = (START_CHECKS,)

    def handle(self, **options: Any) -> None:
        if not settings.OPENSEARCH_URL:
            raise CommandError("There is no OpenSearch: set OPENSEARCH_URL.")
        search = subscription()
        index = cast("Indexer", search.handle).index
        with running_role(f"{CONSUMER}{GROUP}") as role:
            if not role.wait_for(f"OpenSearch at {index.address}", index.prepare):
                return
            if wait_for_topics(role, search.every_topic):
                logger.info("indexing %s as group %s", ", ".join(search.topics), search.group)
                with upkeep(index, search):
                    run_reader(partial(BatchConsumer, search, heartbeat=role.heartbeat), role.stop)
