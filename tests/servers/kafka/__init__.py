"""Apache Kafka, one node without ZooKeeper, from the jars that `tests/setup.sh` copies by Maven."""

import logging
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.process import LOOPBACK, ROOT, Server, free_port

JARS = ROOT / ".servers" / "kafka"
# Refused connections while the broker starts are not worth logging.
_silent = logging.getLogger("tests.kafka.probe")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class KafkaServer(Server):
    """Apache Kafka, broker and controller in one process; topics exist only where somebody creates them."""

    name = "kafka"

    def __init__(self, *, session_timeout: float = 3.0) -> None:
        """`session_timeout`: seconds without a heartbeat after which the controller fences the broker.

        Both are in one process. If it is frozen for longer, it fences itself on waking: its partitions lose their
        leader, its groups their coordinator, and clients may lose its address (docs/adr/0081). But after a kill, the
        controller refuses the next start until the killed broker's session has ended. Kafka's default is 9 s."""
        self.session_timeout = session_timeout
        self.controller_port = free_port()
        super().__init__()

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("java") is None:
            return "Apache Kafka needs Java (Debian: apt-get install default-jdk-headless)"
        if not (JARS / "pom.xml").exists():  # the last file that tests/setup.sh creates
            return "Apache Kafka's jars are not in .servers/kafka (`bash tests/setup.sh` copies them; it needs Maven)"
        return None

    # Small and quick to start: one collector thread, and no optimisation of code that runs for minutes only.
    java_options: Sequence[str] = ("-Xms128m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

    def command(self) -> Sequence[str | Path]:
        java = ["java", *self.java_options, "-Dorg.apache.logging.log4j.level=WARN"]
        return [*java, "-cp", f"{JARS}/*", "kafka.Kafka", self.directory / "server.properties"]

    def prepare(self) -> None:
        (self.directory / "server.properties").write_text(self._properties())
        cluster = urlsafe_b64encode(uuid4().bytes).rstrip(b"=").decode()
        tool = [*self.command()[:-2], "kafka.tools.StorageTool", "format"]
        options = [f"--cluster-id={cluster}", *self.format_options()]
        self.run([*tool, *options, "-c", self.directory / "server.properties"])

    def format_options(self) -> Sequence[str]:
        return []

    def is_ready(self) -> bool:
        client = AdminClient({**self.probe_config(), "socket.timeout.ms": 1000}, logger=_silent)
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def probe_config(self) -> dict[str, Any]:
        """The settings with which a client reaches it."""
        return {"bootstrap.servers": self.address}

    @property
    def env(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": self.address, "KAFKA_EMBEDDED": "false"}

    def _properties(self) -> str:
        return "".join(f"{name}={value}\n" for name, value in self.settings().items())

    def settings(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{LOOPBACK}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.directory / "data",
            # The project creates its topics itself. A topic that is created because of a typo would hide a fault.
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": round(self.session_timeout * 1000),
            "broker.heartbeat.interval.ms": 500,
            # Lower than Kafka's own 6 s, for tests of what happens when a member falls silent.
            "group.min.session.timeout.ms": 1000,
        }
