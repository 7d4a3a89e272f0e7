"""Topics: their names, and that they are there."""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.conf import settings

from eventbus.clients import client_config, prefixed
from runtime.errors import TransientError, is_transient

logger = logging.getLogger(__name__)

# Seconds that Kafka may take to say which topics it has (who stops a role waits as long), and to make some.
ANSWERS_WITHIN: Final = 2.0
MADE_WITHIN: Final = 10.0
# Seconds between two looks whether a new topic can be used yet.
LOOK_PAUSE: Final = 0.05
DEAD_LETTER_SUFFIX: Final = ".dlt"
# Bytes of the largest message that a topic takes, by Kafka's own default; and of the largest dead letter, which carries
# more headers than the message that it holds.
MESSAGE_MAX: Final = 1_048_588
DEAD_LETTER_MAX: Final = MESSAGE_MAX + 64 * 1024
# Kafka deletes whole segments: so many to a topic's retention, or the last messages of one would stay much longer.
SEGMENTS: Final = 7


class TopicError(Exception):
    """Kafka refuses to make a topic; the text says which, why, and which settings decide it."""


def dead_letter_topic(topic: str, group: str) -> str:
    """Where a group puts the messages of a topic that it could not handle."""
    return f"{topic}.{group}{DEAD_LETTER_SUFFIX}"


def kept_for() -> timedelta:
    """How long Kafka may keep a message of a topic that the project made: its retention, and a segment's time more."""
    return timedelta(hours=settings.KAFKA_RETENTION_HOURS) * (SEGMENTS + 1) / SEGMENTS


def ensure_topics(names: Iterable[str]) -> None:
    """Makes the topics that are not there yet; KAFKA_PREFIX is put before each name.

    Raises a transient KafkaException while Kafka does not answer, and TopicError when it refuses.
    """
    wanted = {prefixed(name) for name in names}
    admin = AdminClient(client_config({}))
    if settings.KAFKA_EMBEDDED:
        # The embedded broker cannot make topics when told to. It makes one when it is asked about it, and a group that
        # subscribes to one that is not there yet would not see it for minutes.
        for name in wanted:
            admin.list_topics(name, timeout=ANSWERS_WITHIN)
        return
    # Looked up first, so that a role that may not make topics works where somebody else has made them.
    missing = sorted(wanted - admin.list_topics(timeout=ANSWERS_WITHIN).topics.keys())
    if missing:
        _make(admin, missing)
        _wait_until_known(admin, missing)


def _make(admin: AdminClient, names: list[str]) -> None:
    retention = settings.KAFKA_RETENTION_HOURS * 3_600_000
    topics = [
        NewTopic(
            name,
            num_partitions=settings.KAFKA_PARTITIONS,
            replication_factor=settings.KAFKA_REPLICATION,
            config={
                **({"max.message.bytes": str(DEAD_LETTER_MAX)} if name.endswith(DEAD_LETTER_SUFFIX) else {}),
                "retention.ms": str(retention),
                "segment.ms": str(retention // SEGMENTS),
                # Else Kafka 4 refuses what comes from a clock that is an hour ahead, and keeps a message for as long as
                # its sender's clock says (docs/adr/0017).
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
                continue  # another role was quicker
            if is_transient(error):
                raise
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise TopicError(
                    f"There is no topic {name}, or this user of Kafka may not see it, and the user may create none: "
                    "`manage.py set_up_kafka` does, with an administrator in KAFKA_CLIENT_CONFIG."
                ) from error
            raise TopicError(
                f"Kafka does not make the topic {name} with KAFKA_PARTITIONS={settings.KAFKA_PARTITIONS} and "
                f"KAFKA_REPLICATION={settings.KAFKA_REPLICATION}: {error.args[0].str()}"
            ) from error
        logger.info("made the topic %s", name)


def _wait_until_known(admin: AdminClient, names: list[str]) -> None:
    """Kafka makes a topic a moment before it tells of it. Who subscribes in between waits for it for minutes."""
    deadline = time.monotonic() + MADE_WITHIN
    while True:
        topics = admin.list_topics(timeout=ANSWERS_WITHIN).topics
        unknown = [name for name in names if name not in topics or topics[name].error is not None]
        if not unknown:
            return
        if time.monotonic() > deadline:
            raise TransientError(f"Kafka made the topics {', '.join(unknown)} and does not tell of them yet")
        time.sleep(LOOK_PAUSE)
