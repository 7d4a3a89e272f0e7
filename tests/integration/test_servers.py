"""The servers that the other tests stand on: they answer, keep what they have over a restart, and leave nothing."""

import http.client
import os
import signal
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.servers import CaddyServer, KafkaServer, PostgresqlServer, RedisServer, Server, ValkeyServer, free_port
from tests.waiting import eventually


class Kept:
    """Writes something into a server and reads it back."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def write(self) -> None:
        raise NotImplementedError

    def read(self) -> str | None:
        raise NotImplementedError
