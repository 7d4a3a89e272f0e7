"""The pages under /docs/ show everything in docs/, and every file there can be downloaded."""

import json
from html import unescape
from urllib.parse import urljoin

import pytest
import yaml
from django.test import AsyncClient

from signup_sync.front.contracts.contract_files import DOCS
from tests.contract.documents import document, walk

# Names of examples, and keys that the page renames or omits.
SCHEMAS = [f"schemas/{path.name}" for path in (DOCS / "schemas").glob("*.json")]


async def page(path: str, language: str = "en") -> str:
    answer = await AsyncClient().get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def property_names(file: str) -> set[str]:
    return {path[-1] for path, node in walk(document(file)) if len(path) > 1 and path[-2] == "properties" and node}


async def test_the_api_page_shows_every_operation_with_its_parameters_responses_and_fields():
    shown = await page("/docs/api/")
    contract = document("openapi.yaml")
    for path, operations in contract["paths"].items():
        assert f" {path}</code>" in shown
        for method in operations.keys() & {"get", "post"}:
            assert f'id="{operations[method]["operationId"]}"' in shown
            assert {f"<h4>{status}</h4>" in shown for status in operations[method]["responses"]} == {True}
    names = property_names("openapi.yaml") | property_names("schemas/problem.json")
    names |= property_names("schemas/signup-state.json") | property_names("schemas/change-state.json")
    names |= {parameter["name"] for parameter in contract["components"]["parameters"].values()}
    assert [name for name in names if f"{name}</code>" not in shown] == []


async def test_every_link_within_a_page_has_its_target():
    for path in ("/docs/api/", "/docs/events/"):
        shown = await page(path)
        targets = {part.partition('"')[0] for part in shown.split('href="#')[1:]} - {"main"}
        assert targets
        assert [target for target in targets if f'id="{target}"' not in shown] == []


async def test_the_events_page_shows_every_topic_with_its_messages_and_fields():
    shown = await page("/docs/events/")
    contract = document("asyncapi.yaml")
    for channel in contract["channels"].values():
        assert f"<code>{channel['address']}</code>" in shown
    for message in contract["components"]["messages"].values():
        assert message["title"] in shown
    events = [file for file in SCHEMAS if file.endswith(("-requested.json", "-answered.json", "page-message.json"))]
    names = set.union(property_names("asyncapi.yaml"), *map(property_names, events)) - {"language"}
    assert [name for name in names if f"{name}</code>" not in shown] == []


async def test_examples_keep_their_values_and_nothing_is_markup():
    shown = await AsyncClient().get("/docs/api/")
    assert "&quot;userId&quot;: &quot;김민아&quot;" in shown.content.decode()
    assert "&lt;signupId&gt; &lt;address&gt;" in shown.content.decode()


async def test_the_words_around_the_documents_are_translated():
    assert "매개변수" in await page("/docs/api/", "ko")
    assert "Parameters" in await page("/docs/api/", "en")
    assert "Kafka 토픽" in await page("/docs/events/", "ko")
    assert "개발자 문서" in await page("/docs/", "ko")


async def test_no_page_loads_anything_from_elsewhere():
    for path in ("/docs/", "/docs/api/", "/docs/events/"):
        shown = await page(path)
        assert "<script" not in shown
        assert "style=" not in shown
        assert 'src="' not in shown
        assert 'href="http' not in shown


@pytest.mark.parametrize("file", ["openapi.yaml", "asyncapi.yaml", *SCHEMAS])
async def test_every_file_is_linked_and_downloads_unchanged(file):
    assert f'href="/docs/{file}"' in await page("/docs/")
    answer = await AsyncClient().get(f"/docs/{file}")
    assert answer.content == (DOCS / file).read_bytes()
    kind = "application/yaml" if file.endswith("yaml") else "application/schema+json"
    assert answer.headers["Content-Type"] == kind


async def test_the_references_of_a_downloaded_file_lead_to_files():
    for file in ("openapi.yaml", "asyncapi.yaml", *SCHEMAS):
        for _, node in walk(document(file)):
            if isinstance(node, dict) and isinstance(ref := node.get("$ref"), str) and not ref.startswith("#"):
                answer = await AsyncClient().get(urljoin(f"/docs/{file}", ref).partition("#")[0])
                assert json.loads(answer.content) if file.endswith("json") else yaml.safe_load(answer.content)


@pytest.mark.parametrize("path", ["invariants.md", "schemas/nobody.json", "schemas/..%2Fopenapi.yaml", "adr/"])
async def test_no_other_file_is_served(path):
    assert (await AsyncClient().get(f"/docs/{path}")).status_code == 404
