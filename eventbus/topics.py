"""Topic names, and creating the topics and partitions that are missing."""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from django.conf import settings
from django.core.management.base import CommandError

from eventbus.clients import client_config, prefixed, unprefixed
from runtime.errors import TransientError, is_transient
from runtime.processes.roles import RunningRole

logger = logging.getLogger(__name__)

# Timeouts in seconds for listing topics (stopping a role may take as long), and for creating them.
ANSWERS_WITHIN: Final = 2.0
MADE_WITHIN: Final = 10.0
# Seconds between two checks whether a new topic is usable yet.
CHECK_PAUSE: Final = 0.05
DEAD_LETTER_SUFFIX: Final = ".dlt"
# Largest message in bytes, which is Kafka's default, and largest dead letter, which has more headers than its message.
MESSAGE_MAX: Final = 1_048_588
DEAD_LETTER_MAX: Final = MESSAGE_MAX + 64 * 1024
# Segments per retention period. Kafka deletes whole segments only, so long ones would outlive the retention by far.
SEGMENTS: Final = 7
# Topics with personal data that is read once, immediately, and how long Kafka keeps their messages.
SHORT_LIVED: Final = frozenset({"user.export.req", "user.export.res"})
SHORT_RETENTION: Final = timedelta(hours=1)


class TopicError(Exception):
    """Kafka refuses to create a topic. The text gives the topic, the reason and the settings to change."""


def dead_letter_topic(topic: str, group: str) -> str:
    """Return the name of the topic for the messages of `topic` that `group` could not handle."""
    return f"{topic}.{group}{DEAD_LETTER_SUFFIX}"


def kept_for() -> timedelta:
    """Return the longest time that a topic of ours keeps a message: the retention plus the length of one segment."""
    return timedelta(hours=settings.KAFKA_RETENTION_HOURS) * (SEGMENTS + 1) / SEGMENTS


def ensure_topics(names: Iterable[str]) -> None:
    """Create the topics that do not exist yet. `names` are without KAFKA_PREFIX.

    Raises a transient KafkaException while Kafka does not answer, and TopicError if it refuses.
    """
    wanted = {prefixed(name) for name in names}
    admin = AdminClient(client_config({}))
    if settings.KAFKA_EMBEDDED:
        # The embedded broker has no API for creating topics, but creates one when asked for its metadata. A group that
        # subscribes to a missing topic would not notice it for minutes.
        for name in wanted:
            admin.list_topics(name, timeout=ANSWERS_WITHIN)
        return
    # List first, so that a role without the right to create topics can start if they exist.
    missing = sorted(wanted - admin.list_topics(timeout=ANSWERS_WITHIN).topics.keys())
    if missing:
        _make(admin, missing)
        _wait_until_known(admin, missing)


def add_partitions(names: Iterable[str]) -> list[str]:
    """Give each of these topics KAFKA_PARTITIONS partitions, and return the names of those that had fewer. Kafka can't
    remove partitions, so a topic that has more keeps them. All names are without KAFKA_PREFIX. Raises KafkaException.
    """
    if settings.KAFKA_EMBEDDED:
        return []
    admin = AdminClient(client_config({}))
    topics = admin.list_topics(timeout=ANSWERS_WITHIN).topics
    lacking = [
        name
        for name in names
        if (topic := topics.get(prefixed(name))) and len(topic.partitions) < settings.KAFKA_PARTITIONS
    ]
    for name in lacking:
        wanted = NewPartitions(prefixed(name), settings.KAFKA_PARTITIONS)
        [added] = admin.create_partitions([wanted], operation_timeout=MADE_WITHIN).values()
        added.result()
    return lacking


def wait_for_topics(role: RunningRole, names: Iterable[str]) -> bool:
    """Wait until Kafka answers, and create the missing topics; False if the role should stop.

    Raises CommandError if Kafka refuses to create one.
    """
    try:
        return role.wait_for(f"Kafka at {settings.KAFKA_BOOTSTRAP_SERVERS}", lambda: ensure_topics(names))
    except TopicError as error:
        raise CommandError(str(error)) from error


def _retention_of(name: str) -> int:
    """Return the retention of a topic in milliseconds. KAFKA_RETENTION_HOURS is at least an hour."""
    usual = timedelta(hours=settings.KAFKA_RETENTION_HOURS)
    return (SHORT_RETENTION if unprefixed(name) in SHORT_LIVED else usual) // timedelta(milliseconds=1)


def _make(admin: AdminClient, names: list[str]) -> None:
    topics = [
        NewTopic(
            name,
            num_partitions=settings.KAFKA_PARTITIONS,
            replication_factor=settings.KAFKA_REPLICATION,
            config={
                **({"max.message.bytes": str(DEAD_LETTER_MAX)} if name.endswith(DEAD_LETTER_SUFFIX) else {}),
                "retention.ms": str(_retention_of(name)),
                "segment.ms": str(_retention_of(name) // SEGMENTS),
                # Otherwise Kafka 4 rejects messages from a clock that is an hour ahead, and applies the retention to
                # the sender's clock (docs/adr/0017).
                "message.timestamp.type": "LogAppendTime",
            },
        )
        for name in names
    ]
    for name, made in admin.create_topics(topics, operation_timeout=MADE_WITHIN).items():
        try:
            made.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue  # Another role created it first.
            if is_transient(error):
                raise
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise TopicError(
                    f"The topic {name} does not exist or is hidden from this Kafka user, who may not create topics. "
                    "Run `manage.py set_up_kafka` with an administrator in KAFKA_CLIENT_CONFIG."
                ) from error
            raise TopicError(
                f"Kafka refuses to create the topic {name} with KAFKA_PARTITIONS={settings.KAFKA_PARTITIONS} and "
                f"KAFKA_REPLICATION={settings.KAFKA_REPLICATION}: {error.args[0].str()}"
            ) from error
        logger.info("created the topic %s", name)


def _wait_until_known(admin: AdminClient, names: list[str]) -> None:
    """Wait until Kafka's metadata has the new topics: a consumer that subscribes earlier misses them for minutes."""
    deadline = time.monotonic() + MADE_WITHIN
    while True:
        topics = admin.list_topics(timeout=ANSWERS_WITHIN).topics
        unknown = [name for name in names if name not in topics or topics[name].error is not None]
        if not unknown:
            return
        if time.monotonic() > deadline:
            raise TransientError(f"Kafka created the topics {', '.join(unknown)} but does not list them yet")
        time.sleep(CHECK_PAUSE)
