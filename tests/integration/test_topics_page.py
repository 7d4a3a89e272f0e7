"""The topics page of the administration."""

import json
import secrets
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from eventbus.messages import Subscription
from tests.broker import RecordingHandler, make_topics, put, skip_to_the_end
from tests.users import client_with

pytestmark = [pytest.mark.needs("broker"), pytest.mark.django_db]

PAGE = "/admin/eventbus/topic/"
SCRIPT = "<script>alert(1)</script>"
asked = Subscription(group="answerer", topics=("asked",), handle=RecordingHandler())


@pytest.fixture(autouse=True)
def installation(monkeypatch, patient):
    monkeypatch.setattr(settings, "KAFKA_PREFIX", f"prefix-{secrets.token_hex(4)}-")
    monkeypatch.setattr(settings, "EVENT_CONSUMERS", {"answerer": f"{__name__}.asked"})
    make_topics(asked.every_topic)


@pytest.fixture
def operator() -> Client:
    return client_with("view_topic")


def shown(client: Client, query: str = "", *, status: int = 200) -> str:
    response = client.get(f"{PAGE}asked/{query}")
    assert response.status_code == status
    return response.content.decode()


def values(client: Client, **query: object) -> list[bytes | None]:
    response = client.get(f"{PAGE}asked/?{urlencode(query)}")
    assert response.status_code == 200
    return [each.message.value for each in response.context["messages_shown"]]


def test_topics_with_their_watermarks_and_groups_with_their_lag(operator, django_assert_max_num_queries):
    put("asked", b"1", b"2", b"3", partition=1)
    skip_to_the_end("asked", group="answerer")
    put("asked", b"4", partition=1)
    with django_assert_max_num_queries(9):
        response = operator.get(PAGE)
    text = response.content.decode()
    assert "<b>1</b> 0–4" in text
    assert reverse("admin:eventbus_topic_messages", args=["asked"]) in text
    lag = {group.name: group.lag for group in response.context["groups"]}
    assert lag == {"answerer": 1, "dead-letters": 0}
    # The page lists what the embedded broker can't report.
    assert ("embedded broker" in text) == settings.KAFKA_EMBEDDED
    # The first group has committed; the other one has never had a member.
    states = () if settings.KAFKA_EMBEDDED else ("<td>no members now</td>", "<td>no members yet</td>")
    assert all(state in text for state in states)


def test_the_index_and_the_header_link_the_page_for_staff_with_the_permission(operator):
    assert operator.get("/admin/").content.decode().count(f'href="{PAGE}"') >= 2
    assert PAGE not in client_with("view_deadletter").get("/admin/").content.decode()


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}asked/"])
def test_staff_without_the_permission_are_refused_and_others_sent_to_the_login(path):
    assert client_with("view_deadletter").get(path).status_code == 403
    assert client_with("view_topic", is_staff=False).get(path).url.startswith("/admin/login/")
    assert Client().get(path).url.startswith("/admin/login/")


def test_a_message_with_key_headers_time_and_json_with_indents(operator):
    put(
        "asked", b'{"userId":"\xea\xb9\x80","role":"ROLE_USER"}', key="kim", partition=2, ce_type=b"asked.v1", none=None
    )
    text = shown(operator)
    pretty = json.dumps({"userId": "김", "role": "ROLE_USER"}, ensure_ascii=False, indent=2).replace('"', "&quot;")
    assert f"<pre>{pretty}</pre>" in text
    for part in ("2:0", "kim", "ce_type", "asked.v1"):
        assert part in text


def test_messages_by_offset_by_key_by_time_and_the_newest(operator):
    put("asked", *(b"%d" % number for number in range(12)), key="21", partition=0)
    assert values(operator, limit=10) == [b"%d" % number for number in range(11, 1, -1)]
    assert values(operator, partition=0, offset=3, limit=10) == [b"%d" % number for number in range(3, 12)]
    # The key belongs to partition 0, according to Kafka's own test of murmur2.
    assert len(values(operator, key="21", limit=100)) == 12
    assert values(operator, key="foobar") == []
    assert len(values(operator, since="2020-01-01T00:00:00", limit=100)) == 12
    assert values(operator, since="2100-01-01T00:00:00") == []


def test_a_link_leads_to_further_messages(operator):
    put("asked", *(b"%d" % number for number in range(12)), partition=3)
    text = shown(operator, "?partition=3&offset=0&limit=10")
    assert 'href="?partition=3&amp;offset=10&amp;limit=10"' in text
    assert "There are more messages" not in shown(operator, "?partition=3&offset=10&limit=10")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?offset=1", "Choose the partition"),
        ("?partition=0&offset=1&key=k", "An offset cannot be combined"),
        ("?partition=9", "Select a valid choice"),
        ("?since=yesterday", "Enter a valid date/time"),
        ("?offset=-1&partition=0", "greater than or equal to 0"),
    ],
)
def test_an_invalid_query_is_reported_at_its_field(operator, query, words):
    assert words in shown(operator, query, status=400)


def test_script_in_a_message_is_text(operator):
    put("asked", SCRIPT.encode(), json.dumps({"userName": SCRIPT}).encode(), key=SCRIPT, **{SCRIPT: SCRIPT.encode()})
    text = shown(operator)
    assert SCRIPT not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


@pytest.mark.parametrize("value", [b"", None, b"\xff\x00", b"[" * 100_000, b'"' + b"x" * 900_000 + b'"'])
def test_any_value_can_be_displayed(operator, value):
    put("asked", value, partition=0)
    text = shown(operator)
    assert len(text) < 100_000
    assert ("no value" in text) == (value is None)


def test_an_empty_topic_is_reported(operator):
    assert "This topic has no messages now." in shown(operator)


@pytest.mark.parametrize("name", ["nothing", "__consumer_offsets", "%2e%2e", SCRIPT.replace("/", "%2F")])
def test_a_missing_topic_is_404(operator, name):
    assert operator.get(f"{PAGE}{name}/").status_code == 404


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}asked/"])
def test_an_outage_of_kafka_is_reported_with_the_remedy(operator, monkeypatch, path):
    monkeypatch.setattr("eventbus.inspection.inspector.ANSWERS_WITHIN", 0.2)
    monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    response = operator.get(path)
    assert response.status_code == 503
    text = response.content.decode()
    for words in ("Kafka is not responding", "127.0.0.1:1", "Try again"):
        assert words in text


def test_the_topics_page_accepts_only_get(operator):
    assert {operator.post(path).status_code for path in (PAGE, f"{PAGE}asked/")} == {405}
