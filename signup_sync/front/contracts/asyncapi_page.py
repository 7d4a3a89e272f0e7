"""docs/asyncapi.yaml as the page /docs/events/ shows it."""

from collections.abc import Iterator
from typing import Any

from signup_sync.front.contracts.contract_files import ASYNCAPI, document


def channels() -> Iterator[dict[str, Any]]:
    """Yield each topic and the page's WebSocket; `uses` says who sends and who receives."""
    operations = document(ASYNCAPI)["operations"].values()
    for name, channel in document(ASYNCAPI)["channels"].items():
        uses = [each["summary"] for each in operations if each["channel"]["$ref"] == f"#/channels/{name}"]
        messages = [
            # The payload names the format of its schema, or is the schema itself.
            {**message, "schema": message["payload"].get("schema", message["payload"])}
            for message in channel["messages"].values()
        ]
        yield {**channel, "id": name, "uses": uses, "messages": messages}
