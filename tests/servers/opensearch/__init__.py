"""OpenSearch, one node without plugins, from the jars that `tests/setup.sh` copies by Maven."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.servers.process import ROOT, Server, free_port, http_status

HERE = Path(__file__).parent
JARS = ROOT / ".servers" / "opensearch"


class OpenSearchServer(Server):
    """An OpenSearch that requires no password."""

    name = "opensearch"
    # It takes 8 s of CPU to start.
    start_timeout = 180.0

    def __init__(self) -> None:
        self.transport_port = free_port()
        super().__init__()

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("java") is None:
            return "OpenSearch needs Java (Debian: apt-get install default-jdk-headless)"
        if not (JARS / "pom.xml").exists():  # The last file that tests/setup.sh creates.
            return (
                "OpenSearch's jars are not in .servers/opensearch (`bash tests/setup.sh` copies them; it needs Maven)"
            )
        return None

    # Small and quick to start, as for Kafka.
    java_options: Sequence[str] = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

    def command(self) -> Sequence[str | Path]:
        ports = [str(self.port), str(self.transport_port)]
        return [
            "java",
            *self.java_options,
            "-cp",
            f"{JARS}:{JARS}/*",
            "OpenSearchNode",
            self.directory / "node",
            *ports,
        ]

    def is_ready(self) -> bool:
        return http_status(self.port, "/_cluster/health?wait_for_status=yellow&timeout=1s") == 200

    @property
    def env(self) -> dict[str, str]:
        return {"OPENSEARCH_URL": f"http://{self.address}"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to the node, without the product's client, and return the JSON of its answer.

        Raises AssertionError, for which `eventually` waits, while an index or the node is not available yet."""
        request = urllib.request.Request(
            f"http://{self.address}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise AssertionError(error.read()) from error
            raise

    def documents(self, index: str) -> list[dict[str, Any]]:
        """Return all documents of the index (at most 10,000), with their ids as `_id`."""
        self.ask("POST", f"{index}/_refresh")
        found = self.ask("GET", f"{index}/_search?size=10000")
        return [{"_id": hit["_id"], "_index": hit["_index"], **hit["_source"]} for hit in found["hits"]["hits"]]
