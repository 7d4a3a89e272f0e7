"""Golden messages: what each version of each event looked like when its publisher sent it. Today's readers accept all.

`golden/<schema>/v<N>.json` has the messages of one version. v1 of the first four events was written by the code of
0.1.0 before accounts had versions (commit bdbcaef). **A schema that changes gets a new file**, with messages that the
changed code publishes; the existing files never change, so `golden/SHA256SUMS` has their checksums. After a new file:

    cd tests/contract/golden && sha256sum */*.json > SHA256SUMS
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from authsvc.accounts.export import collection
from authsvc.reconcile import events as auth_reconcile
from authsvc.signups.events import NewUserAnswered
from authsvc.signups.events import decode_answer as decode_verdict
from eventbus.messages import Incoming
from eventsearch.documents import EVENT_TOPICS, MAPPING, document_of
from participant import export, reconcile
from participant.events import NewUser, decode_request
from tests.contract.documents import DOCS, check_event_message, document

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*/v*.json"))
# The schemas of events; the others describe the API and the page.
EVENTS = sorted(path.stem for path in (DOCS / "schemas").glob("*ed.json"))
READERS: dict[str, Callable[[Incoming], Any]] = {
    "new-user-requested": decode_request,
    "change-user-requested": decode_request,
    "remove-user-requested": decode_request,
    "new-user-answered": decode_verdict,
    "change-answered": decode_verdict,
    "reconcile-requested": reconcile.decode_page,
    "reconcile-answered": auth_reconcile.decode_answer,
    "export-requested": export.decode_export,
    "export-answered": collection._decode,
}
# Enumerated values of fields that no publisher sends any more would be listed here, with the reason.
NOT_SENT: frozenset[str] = frozenset()


def messages(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))


def delivered(message: dict[str, Any]) -> Incoming:
    headers = tuple((name, text.encode()) for name, text in message["headers"].items())
    value = json.dumps(message["value"], ensure_ascii=False).encode()
    return Incoming(message["headers"]["ce_type"], 0, 0, message["key"].encode(), value, headers)


def read(schema: str, version: int) -> list[Any]:
    """Return the messages of one version as today's reader sees them."""
    return [READERS[schema](delivered(each)) for each in messages(GOLDEN / schema / f"v{version}.json")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name} {file.stem}")
def test_every_version_matches_the_current_schema_and_is_read_with_all_its_values(file: Path):
    names = {each["name"]: name for name, each in document("asyncapi.yaml")["components"]["messages"].items()}
    for message in messages(file):
        check_event_message(names[message["headers"]["ce_type"]], message["headers"], message["value"])
        known = READERS[file.parent.name](delivered(message))
        for name in ("signupId", "changeId", "ownerSignupId", "userId", "service", "runId", "exportId"):
            attribute = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
            if name in message["value"] and hasattr(known, attribute):
                assert str(getattr(known, attribute)) == message["value"][name]


def test_every_version_is_indexed_by_its_kind_and_id_with_all_fields_of_the_mapping():
    kinds = {
        "newUser": ("signUp", "signupId"),
        "changeUser": ("change", "changeId"),
        "removeUser": ("removal", "changeId"),
    }
    topics = set()
    for message in (each for file in FILES for each in messages(file)):
        if (topic := message["headers"]["ce_type"]) not in EVENT_TOPICS:
            continue
        topics.add(topic)
        source = document_of(delivered(message), {}, now=datetime.now(UTC)).source
        kind, name = kinds[topic.split(".")[1]]
        assert source["readable"]
        assert (source["kind"], str(source[name])) == (kind, message["value"][name])
        assert source.keys() >= message["value"].keys() & MAPPING["properties"].keys()
    assert topics == set(EVENT_TOPICS)


def test_a_request_without_a_version_is_the_first_one_of_an_active_account():
    for request in read("new-user-requested", 1):
        assert isinstance(request, NewUser)
        assert (request.version, request.is_account_active) == (1, True)
    first, *_ = read("new-user-requested", 2)
    assert (first.version, first.is_account_active) == (3, False)


def test_an_answer_without_the_accounts_in_the_way_names_none():
    for answer in read("new-user-answered", 1):
        assert isinstance(answer, NewUserAnswered)
        assert answer.held_by == []
    assert [len(answer.held_by) for answer in read("new-user-answered", 2)] == [0, 2, 2, 0]


def test_a_page_without_versions_and_removals_has_the_first_versions_of_active_accounts():
    for page in read("reconcile-requested", 1):
        assert page.removed == []
        assert {(record.version, record.is_account_active) for record in page.records} <= {(1, True)}
    assert read("reconcile-requested", 2)[0].removed != []


# --- A changed schema needs new messages ---------------------------------------------------------------------------


def features(schema: Any, path: str = "") -> Iterator[str]:
    """Yield what a schema allows: each property, and each value of an enumeration."""
    for value in schema.get("enum", []):
        yield f"{path}={value}"
    for name, inner in schema.get("properties", {}).items():
        if inner is not False:
            yield f"{path}.{name}"
            yield from features(inner, f"{path}.{name}")
    if isinstance(items := schema.get("items"), dict):
        yield from features(items, f"{path}[]")


def exercised(value: Any, path: str = "") -> Iterator[str]:
    """Yield the same of a value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{path}.{name}"
            yield from exercised(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from exercised(inner, f"{path}[]")
    else:
        yield f"{path}={value}"


def newest(schema: str) -> Path:
    return max((GOLDEN / schema).glob("v*.json"), key=lambda file: int(file.stem[1:]))


def unexercised(schema: Any, values: list[Any]) -> set[str]:
    """Return the properties and enumerated values of a schema that no value has."""
    return set(features(schema)) - {feature for value in values for feature in exercised(value)} - NOT_SENT


@pytest.mark.parametrize("schema", EVENTS)
def test_the_newest_messages_have_every_property_and_every_value_of_the_schema(schema: str):
    values = [message["value"] for message in messages(newest(schema))]
    lacking = unexercised(document(f"schemas/{schema}.json"), values)
    number = int(newest(schema).stem[1:])
    assert not lacking, f"{schema}.json has changed: add golden/{schema}/v{number + 1}.json with {sorted(lacking)}"


def test_a_property_or_a_value_that_is_added_to_a_schema_is_noticed():
    schema = document("schemas/new-user-answered.json")
    values = [message["value"] for message in messages(newest("new-user-answered"))]
    more = {"nickname": {"type": "string"}, "status": {"enum": ["SUCCESS", "FAIL", "LATER"]}}
    changed = schema | {"properties": schema["properties"] | more}
    assert unexercised(changed, values) == {".nickname", ".status=LATER"}


def test_every_event_has_golden_messages_and_a_reader():
    assert {file.parent.name for file in FILES} == set(EVENTS) == set(READERS)
    for schema in EVENTS:
        numbers = sorted(int(file.stem[1:]) for file in (GOLDEN / schema).glob("v*.json"))
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_messages_of_a_version_never_change():
    lines = (GOLDEN / "SHA256SUMS").read_text().splitlines()
    recorded = {name: digest for digest, name in (line.split() for line in lines)}
    found = {str(file.relative_to(GOLDEN)): sha256(file.read_bytes()).hexdigest() for file in FILES}
    assert found == recorded, "Restore the changed file and add a new version, as this module's first lines explain."
