"""The classification of errors into transient and permanent ones."""

from itertools import islice

import pytest
import redis.exceptions
from confluent_kafka import KafkaError, KafkaException
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from psycopg_pool import PoolTimeout

from eventbus.errors import DeliveryError
from runtime.backoff import growing_pauses
from runtime.errors import PermanentError, TransientError, is_transient


@pytest.mark.parametrize(
    "error",
    [
        TransientError(),
        DeliveryError((), "away"),
        OperationalError(),
        InterfaceError(),
        PoolTimeout(),
        redis.exceptions.ConnectionError(),
        redis.exceptions.TimeoutError(),
        redis.exceptions.BusyLoadingError(),
        redis.exceptions.ReadOnlyError(),
        redis.exceptions.OutOfMemoryError(),
        InternalError("cannot execute INSERT in a read-only transaction"),
        ProgrammingError("permission denied"),
        DatabaseError("malformed"),
        ConnectionRefusedError(),
        TimeoutError(),
        KafkaException(KafkaError(KafkaError._TRANSPORT)),
        KafkaException(KafkaError(KafkaError._WAIT_COORD)),
        KafkaException(KafkaError(KafkaError.NOT_COORDINATOR)),
        # A broker that has just come back, to a client that has seen it before.
        KafkaException(KafkaError(KafkaError.UNKNOWN_LEADER_EPOCH)),
        KafkaException(KafkaError(KafkaError.UNKNOWN, "later", False, True)),
    ],
    ids=repr,
)
def test_errors_of_unreachable_servers_are_transient(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        PermanentError(),
        ValueError(),
        IntegrityError(),
        DataError(),
        FileNotFoundError(),
        KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)),
        KafkaException(KafkaError(KafkaError._TRANSPORT, "fatal", True)),
        KafkaException("words alone"),
    ],
    ids=repr,
)
def test_errors_that_no_retry_can_repair_are_not_transient(error):
    assert not is_transient(error)


def test_the_pauses_double_up_to_the_maximum_with_full_jitter():
    tries = [list(islice(growing_pauses(first=0.1, most=10), 12)) for _ in range(300)]
    limits = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10, 10]
    for limit, pauses in zip(limits, zip(*tries, strict=True), strict=True):
        assert 0 <= min(pauses) < limit * 0.1
        assert limit * 0.9 < max(pauses) <= limit
