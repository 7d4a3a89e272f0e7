"""librdkafka's in-memory mock broker, which `make run` and quick tests use as Kafka."""

from typing import Self

from confluent_kafka import Producer


class EmbeddedBroker:
    """Run a broker on a free loopback port, for this and other processes, while the context is open.

    It creates topics with 4 partitions on first use, keeps about 5 MB of each partition, and persists nothing.
    """

    bootstrap_servers: str

    def __enter__(self) -> Self:
        # The broker lives as long as the client that holds it.
        self._holder = Producer({"bootstrap.servers": "embedded", "test.mock.num.brokers": 1, "log_level": 2})
        brokers = self._holder.list_topics(timeout=5).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        return self

    def __exit__(self, *_: object) -> None:
        del self._holder
