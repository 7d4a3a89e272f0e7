"""Every page of the administration in Korean: none of the product's own texts is in English."""

import re
from collections.abc import Iterator
from gettext import GNUTranslations
from html.parser import HTMLParser
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.admin import site
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from authsvc.lights import Status, Verdict
from authsvc.models import User
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from chatsvc.models import ChatUser
from eventbus.deadletters.letters import Origin, store_letters
from eventbus.messages import HandledBatch, Incoming, Subscription, dead_letter
from eventbus.models import DeadLetter
from eventbus.topics import dead_letter_topic
from livesettings.models import ROW
from livesettings.values import take
from runtime.admin_toolkit.page_admin import PageAdmin
from runtime.errors import PermanentError
from runtime.processes.health import Heartbeat
from runtime.processes.instances import InstanceReport, read_instances
from tests.broker import make_topics
from tests.participants import MODELS
from tests.signups import save_signups
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True, databases="__all__"),
    pytest.mark.needs("broker", "redis"),
]

CATALOGUE = Path(__file__).parents[2] / "locale/ko/LC_MESSAGES/django.mo"
PLACEHOLDER = re.compile(r"%\(\w+\)s|%\(\w+\)d|%s|%d|\{\w*\}")
SHOWN_ATTRIBUTES = ("title", "placeholder", "aria-label", "alt")


class Texts(HTMLParser):
    """The visible texts of a page, including those of attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._silent = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("script", "style")
        given = dict(attrs)
        shown = [given.get(name) for name in SHOWN_ATTRIBUTES]
        shown += [given.get("value")] if tag == "input" and given.get("type") in ("submit", "button") else []
        self.found += [" ".join(text.split()) for text in shown if text]

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent and (text := " ".join(data.split())):
            self.found.append(text)


def our_english() -> list[re.Pattern[str]]:
    """Of each text that we translate its English: the whole of what is said where it is short, else a part of it."""
    with CATALOGUE.open("rb") as catalogue:
        messages = GNUTranslations(catalogue)._catalog
    patterns = []
    for message, korean in messages.items():
        english = message[0] if isinstance(message, tuple) else message
        words = re.findall(r"[A-Za-z]{2,}", PLACEHOLDER.sub(" ", english))
        if not words or english == korean:
            continue
        text = ".+?".join(map(re.escape, PLACEHOLDER.split(" ".join(english.split()))))
        patterns.append(re.compile(text if len(words) > 2 else rf"\A{text}\Z"))
    return patterns


@pytest.fixture
def defaults_afterwards() -> Iterator[None]:
    """For this process, whose other tests have live settings too."""
    yield
    take({})


@pytest.fixture
def desk(monkeypatch, defaults_afterwards) -> Iterator[Client]:
    """The administration in Korean, with something of each kind to show."""
    monkeypatch.setattr(settings, "KAFKA_PREFIX", f"korean-{uuid4()}-")
    asked = Subscription("chat", (NEW_USER_REQUESTED,), lambda batch: HandledBatch())
    make_topics([*asked.every_topic, NEW_USER_ANSWERED])
    names = ("zq1", "zq2")
    signup_ids = save_signups(*names)
    apply_verdicts([ReportedVerdict(signup_ids[1], Verdict("chat", Status.FAIL, "duplicate: userId"))])
    for model in MODELS.values():
        model.objects.create(user_id="zq1", email="zq1@example.org", owner_signup_id=signup_ids[0])
    message = Incoming(NEW_USER_REQUESTED, 1, 17, b"zq1", b"{}", (), 1_800_000_000_000)
    topic = dead_letter_topic(NEW_USER_REQUESTED, "chat")
    letter = dead_letter(message, PermanentError("zq"), group="chat")
    store_letters(
        [Incoming(topic, 0, 0, letter.key, letter.value, letter.headers, 1_800_000_000_000)],
        {topic: Origin(NEW_USER_REQUESTED, "chat")},
    )
    Group.objects.create(name="zq")
    client = Client(headers={"accept-language": "ko"})
    client.force_login(User.objects.create_superuser("zq-root", "zq-root@example.org", "correct horse 9"))
    leave_acts(client, str(signup_ids[0]))
    with InstanceReport("consumer of chat", Heartbeat()):
        eventually(read_instances)
        yield client


def leave_acts(client: Client, signup_id: str) -> None:
    """Those of an administrator, for the histories."""
    settings_page = reverse("admin:livesettings_overrides_change", args=[ROW])
    client.get("/admin/livesettings/overrides/")
    assert client.post(settings_page, {"seen": 0, "SIGNUP_OPEN": "no", "SIGNUP_DEADLINE": "45"}).status_code == 302
    chosen = {"action": "replay_chosen", "_selected_action": [signup_id], "service": "chat"}
    assert client.post("/admin/authsvc/eventtransaction/", chosen).status_code == 302
    copy = {"action": "deactivate", "_selected_action": [ChatUser.objects.get().pk]}
    assert client.post("/admin/chatsvc/chatuser/", copy).status_code == 302
    discarded = {"action": "discard_chosen", "_selected_action": [DeadLetter.objects.get().pk], "reason": "zq"}
    client.post("/admin/eventbus/deadletter/", discarded)


def pages() -> Iterator[str]:
    yield from ("/admin/", f"/admin/eventbus/topic/{NEW_USER_REQUESTED}/")
    yield from (f"/admin/authsvc/eventtransaction/?lights={lights}" for lights in ("red", "pending", "stalled"))
    for model, its_admin in site._registry.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{name}_changelist")
        if isinstance(its_admin, PageAdmin):
            continue
        yield reverse(f"{name}_add")
        for row in model.objects.all():
            yield from (reverse(f"{name}_{view}", args=[row.pk]) for view in ("change", "history", "delete"))


def test_every_text_of_ours_in_the_admin_is_in_korean(desk):
    english = our_english()
    assert any(pattern.search("May replay sign-ups") for pattern in english), "the catalogue is read"
    said = set()
    for path in pages():
        response = desk.get(path, follow=True)
        assert response.status_code in (200, 403), path
        for text in Texts(response.content.decode()).found:
            # The name of a service in messages, and the entry of Django's log in the list of objects to delete.
            if text in settings.SIGNUP_SERVICES or text.startswith("로그 엔트리:"):
                continue
            said |= {f"{path}: {text}" for pattern in english if pattern.search(text)}
    assert sorted(said) == []
