"""`manage.py consume_events <service>`: run one service's Kafka consumers."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from eventbus.consumer import BatchConsumer
from eventbus.group_member import run_reader
from eventbus.messages import Subscription
from eventbus.subscriptions import subscriptions_of
from eventbus.topics import wait_for_topics
from runtime.processes.health import Heartbeat
from runtime.processes.instances import CONSUMER, InstanceReport
from runtime.processes.roles import START_CHECKS, RunningRole, check_database, running_role

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Run the Kafka consumers of a service: read its events, handle them in batches, publish its answers, and then "
        "commit the offsets. Creates missing topics. Waits until Kafka and the database are available. Any number of "
        "instances may run for a service: they share its partitions. Stops within 5 s after SIGTERM."
    )
    requires_system_checks = (START_CHECKS,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "service",
            choices=[*settings.EVENT_CONSUMERS, *settings.CONSUMED_TOGETHER],
            help="The service to run; EVENT_CONSUMERS in the settings lists the subscriptions of each. "
            "`scim`, with SCIM_SERVERS, stands for the services of all SCIM servers, in one process.",
        )

    def handle(self, *, service: str, **options: Any) -> None:
        services = settings.CONSUMED_TOGETHER.get(service, [service])
        subscriptions = [subscription for each in services for subscription in subscriptions_of(each)]
        prepare(subscriptions)
        app_label = settings.EVENT_CONSUMERS[services[0]].partition(".")[0]
        topics = list(chain.from_iterable(subscription.every_topic for subscription in subscriptions))
        with running_role(f"{CONSUMER}{service}") as role, ExitStack() as stack:
            for each in services:
                if each != service:
                    stack.enter_context(InstanceReport(f"{CONSUMER}{each}", role.heartbeat))
            if not role.wait_for("its database", partial(check_database, app_label)):
                return
            if wait_for_topics(role, topics):
                consume(subscriptions, role)


def prepare(subscriptions: Sequence[Subscription]) -> None:
    """Prepare the handlers. Raises CommandError if this process lacks settings that one of them needs."""
    for subscription in subscriptions:
        if subscription.prepare is not None:
            try:
                subscription.prepare()
            except ImproperlyConfigured as error:
                raise CommandError(str(error)) from error


def consume(subscriptions: Sequence[Subscription], role: RunningRole) -> None:
    """Run a consumer for each subscription until the role stops. If one fails, stop the others and raise its error."""
    hearts = role.heartbeat.parts(len(subscriptions))
    with ThreadPoolExecutor(len(subscriptions), thread_name_prefix="consumer") as threads:
        runs = [threads.submit(_run, *each, role) for each in zip(subscriptions, hearts, strict=True)]
    for run in runs:
        run.result()


def _run(subscription: Subscription, heartbeat: Heartbeat, role: RunningRole) -> None:
    logger.info("consuming %s as group %s", ", ".join(subscription.topics), subscription.group)
    try:
        run_reader(partial(BatchConsumer, subscription, heartbeat=heartbeat), role.stop)
    finally:
        role.stop.set()
