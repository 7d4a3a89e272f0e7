"""`manage.py collect_dead_letters`: copy dead letters from Kafka into the table."""

import logging
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand

from eventbus.deadletters.collector import DeadLetterCollector
from eventbus.deadletters.letters import dead_letter_origins
from eventbus.group_member import run_reader
from eventbus.topics import wait_for_topics
from runtime.processes.roles import START_CHECKS, check_database, running_role

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = (
        "Copy dead letters from the consumers' dead-letter topics into the table that the admin and "
        "`manage.py dead_letters` show. Waits until Kafka and the database are available. Any number of instances may "
        "run. Stops within 5 s after SIGTERM."
    )
    requires_system_checks = (START_CHECKS,)

    def handle(self, **options: Any) -> None:
        origins = dead_letter_origins()
        with running_role("collector of dead letters") as role:
            if not role.wait_for("its database", partial(check_database, "eventbus")):
                return
            if wait_for_topics(role, origins):
                logger.info("collecting %s", ", ".join(origins))
                run_reader(partial(DeadLetterCollector, origins, heartbeat=role.heartbeat), role.stop)
