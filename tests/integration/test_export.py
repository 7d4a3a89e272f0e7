"""Exports for owners, with the participants' real handlers on the other side of Kafka."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from confluent_kafka import KafkaException
from django.test import Client
from django.utils.formats import date_format
from django.utils.timezone import localtime

from authsvc.accounts.export import collection
from authsvc.models import User
from chatsvc.models import ChatUser
from eventbus.consumer import BatchConsumer
from eventbus.messages import Subscription
from eventbus.replies import Replies
from eventbus.subscriptions import subscriptions_of
from eventbus.topics import ensure_topics
from tests.conftest import new_person
from tests.waiting import PATIENCE, eventually

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "chat", "customer"]),
    pytest.mark.needs("broker", "redis"),
]
PASSWORD = "correct horse 9"


@pytest.fixture(autouse=True)
def own_topics(settings) -> None:
    settings.KAFKA_PREFIX = f"export-{uuid4()}-"
    ensure_topics([collection.EXPORT_REQUESTED, collection.EXPORT_ANSWERED])
    eventually(can_be_read, what="the new topics have leaders")


def can_be_read() -> bool:
    """Whether Kafka has a leader for each partition. Until then, the page rightly asks the user to try again."""
    try:
        with Replies(collection.EXPORT_ANSWERED):
            return True
    except KafkaException:
        return False


@contextmanager
def running(*subscriptions: Subscription) -> Iterator[None]:
    stop = threading.Event()
    for subscription in subscriptions:
        ensure_topics(subscription.every_topic)
    consumers = [BatchConsumer(subscription) for subscription in subscriptions]
    threads = [threading.Thread(target=consumer.run, args=(stop,)) for consumer in consumers]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(consumer.partitions for consumer in consumers))
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def kim() -> User:
    person = new_person()
    user = User.objects.create_user(person.user_id, person.email, PASSWORD, user_name="Mina Kim")
    values = {"user_id": user.user_id, "email": user.email, "user_name": "Mina K."}
    ChatUser.objects.create(signup_id=user.owner_signup_id, owner_signup_id=user.owner_signup_id, **values)
    other = new_person()
    ChatUser.objects.create(
        owner_signup_id=uuid4(), user_id=other.user_id, email=other.email, user_name="Somebody else"
    )
    return user


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_owner_reads_and_downloads_the_data_that_every_service_holds(kim):
    client = logged_in(kim)
    with running(subscriptions_of("chat")[1], subscriptions_of("customer")[1]):
        page = client.post("/account/data/", {"password": PASSWORD}).content.decode()
        document = json.loads(client.post("/account/data/", {"password": PASSWORD, "format": "json"}).content)
    assert "Mina K." in page
    labels = re.findall("<dt>(.*?)</dt>", page)
    assert {"Last login", "Has a password", "Started", "Account active", "Created"} <= {*labels}
    assert [label for label in labels if re.search("[a-z][A-Z]", label)] == []
    values = {*re.findall("<dd>(.*?)</dd>", page)}
    joined = date_format(localtime(kim.date_joined), "DATETIME_FORMAT")
    assert {"Yes", "No", "none", "User", "Sign-up", joined} <= values
    assert [value for value in values if value in {"True", "False", "None"} or re.match(r"\d{4}-", value)] == []
    assert "This service holds nothing about you." in page
    assert "Somebody else" not in page + json.dumps(document)
    assert document["didNotAnswer"] == []
    assert [row["userName"] for row in document["services"]["chat"]] == ["Mina K."]
    assert document["services"]["customer"] == []
    account, signup = document["services"]["auth"]
    assert (account["userId"], account["hasPassword"], signup["kind"]) == (kim.user_id, True, "signUp")
    assert "pbkdf2" not in json.dumps(document) + page
    assert "argon2" not in json.dumps(document) + page


def test_a_service_that_does_not_answer_is_named(kim, monkeypatch):
    monkeypatch.setattr(collection, "ANSWERED_WITHIN", 0.5)
    document = logged_in(kim).post("/account/data/", {"password": PASSWORD, "format": "json"}).json()
    assert document["didNotAnswer"] == ["chat", "customer"]
    assert list(document["services"]) == ["auth"]


def test_an_export_requires_a_session_and_the_password(kim):
    assert "This password is wrong." in logged_in(kim).post("/account/data/", {"password": "no"}).content.decode()
    assert Client().get("/account/data/").status_code == 302


def test_exports_above_the_limit_are_refused_with_a_message(kim, monkeypatch):
    monkeypatch.setattr(collection, "_running", threading.BoundedSemaphore(1))
    assert collection._running.acquire()
    answer = logged_in(kim).post("/account/data/", {"password": PASSWORD})
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert "Try again in a moment" in answer.content.decode()


def test_one_user_runs_at_most_one_export_at_a_time(kim, monkeypatch):
    monkeypatch.setattr(collection, "ANSWERED_WITHIN", 0.2)
    has_begun, may_end = threading.Event(), threading.Event()

    def publish_later(events: object) -> None:
        monkeypatch.undo()
        has_begun.set()
        may_end.wait(PATIENCE)

    monkeypatch.setattr(collection, "publish", publish_later)
    client, other = logged_in(kim), logged_in(User.objects.create_user("other", "other@example.org", PASSWORD))
    first = threading.Thread(
        target=async_to_sync(database_sync_to_async(client.post)), args=("/account/data/", {"password": PASSWORD})
    )
    first.start()
    try:
        assert has_begun.wait(PATIENCE)
        answer = logged_in(kim).post("/account/data/", {"password": PASSWORD})
        assert (answer.status_code, answer["Retry-After"]) == (429, "5")
        assert "Your data is being collected already." in answer.content.decode()
        monkeypatch.setattr(collection, "ANSWERED_WITHIN", 0.2)
        assert other.post("/account/data/", {"password": PASSWORD}).status_code == 200
    finally:
        may_end.set()
        first.join()
    assert client.post("/account/data/", {"password": PASSWORD}).status_code == 200
