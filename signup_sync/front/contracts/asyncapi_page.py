"""docs/asyncapi.yaml as the page /docs/events/ shows it."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.utils.safestring import SafeString

from signup_sync.front.contracts.contract_files import ASYNCAPI, Place, document
from signup_sync.front.contracts.markup import blocks
from signup_sync.front.contracts.openapi_page import Example, example_text
from signup_sync.front.contracts.schemas import Field, fields_of


@dataclass(frozen=True)
class Message:
    id: str
    title: str
    description: SafeString
    key: str
    headers: list[Field]
    fields: list[Field]
    examples: list[Example]


@dataclass(frozen=True)
class Channel:
    """A topic or the page's WebSocket. `uses` are the summaries of its operations: who sends and who receives."""

    id: str
    address: str
    protocol: str
    description: SafeString
    uses: list[str]
    messages: list[Message]


def channels() -> Iterator[Channel]:
    root = Place(ASYNCAPI, document(ASYNCAPI))
    operations = document(ASYNCAPI)["operations"].values()
    for name, node in document(ASYNCAPI)["channels"].items():
        channel = root.child("channels", name)
        messages = channel.child("messages")
        yield Channel(
            id=name,
            address=node["address"],
            protocol=Place(ASYNCAPI, node["servers"][0]).resolved().node["protocol"],
            description=blocks(node.get("description", "")),
            uses=[each["summary"] for each in operations if each["channel"]["$ref"] == f"#/channels/{name}"],
            messages=[_message(each, messages.child(each)) for each in messages.node],
        )


def _message(name: str, place: Place) -> Message:
    payload = place.child("payload")
    schema = payload.child("schema") if "schema" in payload.node else payload
    examples = place.node.get("examples", [])
    return Message(
        id=name,
        title=place.node["title"],
        description=blocks(schema.node.get("description", "")),
        key=place.child("bindings", "kafka", "key").node.get("description", ""),
        headers=list(fields_of(place.child("headers"))),
        fields=list(fields_of(schema)),
        examples=[Example(each.get("summary", each["name"]), example_text(each["payload"])) for each in examples],
    )
