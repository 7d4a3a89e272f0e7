"""The administration on odd input: searches find the listed rows, unprintable text is marked as such, and no URL
fails."""

import html
import json
import logging
import secrets
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest
from confluent_kafka import murmur2
from django.conf import settings as django_settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, reverse
from django.utils import timezone

from authsvc.models import SignUp, UnconfirmedSignUp, User
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from eventbus.deadletters.letters import dead_letter_origins, store_letters
from eventbus.messages import Incoming
from eventbus.models import DeadLetter
from tests.broker import PARTITIONS, configure, make_topics, put
from tests.participants import ADMIN_PATHS, MODELS
from tests.signups import save_signup

pytestmark = pytest.mark.django_db(databases="__all__")

on_a_broker = pytest.mark.needs("broker")
TOPIC = "/admin/eventbus/topic/"
# In milliseconds: the year 10000, Java's and Kafka's largest, the last moment of the calendar in UTC.
BEYOND = (253_402_300_800_000, 2**63 - 1, 253_402_300_799_999)


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root-user", "root@example.org", "correct horse 9"))
    return client


@pytest.fixture
def nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No error is logged."""
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    # Django's word for 400.
    errors = [each for each in records if each.levelno >= logging.ERROR and "Disallowed" not in each.name]
    assert [record.getMessage() for record in errors] == []


def found(client: Client, model: str, query: str) -> list[str]:
    response = client.get(f"/admin/{model}/", {"q": query})
    assert response.status_code == 200
    return [row.user_id for row in response.context["cl"].result_list]


def spellings(text: str) -> set[str]:
    """Return the text in various cases, compositions and widths."""
    cases = {text, text.upper(), text.lower(), text.casefold(), text.title(), text.swapcase()}
    return cases | {unicodedata.normalize(form, each) for each in cases for form in ("NFC", "NFD")}


# --- Searches

PEOPLE = {
    "straße": "Groß Weiß",
    "nguyễn": "Nguyễn Thị Hằng",
    "김민아": "김민아",
    "กิตติ": "กิตติ ใจดี",
    "Ｆｕｌｌ": "Ｗｉｄｅ Name",
    "σίσυφος": "Σίσυφος Κορίνθιος",
    "a_b": "50 % off_er",
    "İpek": "İpek Işık",
}


@pytest.fixture
def people() -> None:
    for user_id, name in PEOPLE.items():
        signup = save_signup(
            unicodedata.normalize("NFKC", user_id), email=f"{secrets.token_hex(6)}@example.com", name=name
        )
        for model in MODELS.values():
            model.objects.create(
                user_id=signup.user_id, email=signup.email, user_name=name, role="ROLE_USER", signup_id=signup.id,
                owner_signup_id=signup.id,
            )  # fmt: skip


@pytest.mark.parametrize("model", ["authsvc/user", "authsvc/eventtransaction", *ADMIN_PATHS.values()])
@pytest.mark.usefixtures("people")
def test_a_search_finds_a_user_id_in_every_spelling(client: Client, model: str) -> None:
    for user_id in PEOPLE:
        shown = unicodedata.normalize("NFKC", user_id)
        for spelling in spellings(user_id) | {f" {user_id} "}:
            assert found(client, model, spelling) == [shown], spelling


@pytest.mark.parametrize("model", ["authsvc/user", "chatsvc/chatuser"])
@pytest.mark.usefixtures("people")
def test_a_search_finds_a_name_in_every_spelling(client: Client, model: str) -> None:
    for user_id, name in PEOPLE.items():
        for spelling in (*spellings(name.split()[-1]), name, " ".join(reversed(name.split()))):
            assert unicodedata.normalize("NFKC", user_id) in found(client, model, spelling), spelling


@pytest.mark.parametrize("model", ["authsvc/user", "authsvc/eventtransaction", "chatsvc/chatuser"])
@pytest.mark.usefixtures("people")
def test_pattern_characters_in_a_search_are_literal(client: Client, model: str) -> None:
    for term in ("_", "%", "a%b", "\\", "[a]", "*", "'", '"', "a_c", "''; --"):
        has_name = model != "authsvc/eventtransaction"
        assert set(found(client, model, term)) == ({"a_b"} if term in ("_", "%") and has_name else set()), term


@pytest.mark.usefixtures("people")
def test_a_search_finds_an_address_in_every_spelling(client: Client) -> None:
    save_signup("boss", email="kim@xn--bcher-kva.example")
    for model in MODELS.values():
        model.objects.create(user_id="boss", email="kim@xn--bcher-kva.example", user_name="Kim", role="ROLE_USER")
    for model in ("authsvc/user", *ADMIN_PATHS.values()):
        for spelling in ("kim@xn--bcher-kva.example", "KIM@BÜCHER.example", "Kim@bücher。example", "KIM@xn--b"):
            assert found(client, model, spelling) == ["boss"], (model, spelling)


def test_a_search_for_32_hex_digits_finds_a_sign_up_by_its_user_id_and_by_its_id(client: Client) -> None:
    signup_id = uuid4()
    save_signup(uuid4().hex)
    save_signup(signup_id.hex)
    save_signup("owner", signup_id=signup_id)
    for spelling in (signup_id.hex, signup_id.hex.upper(), str(signup_id)):
        expected = {"owner", signup_id.hex} if "-" not in spelling else {"owner"}
        assert set(found(client, "authsvc/eventtransaction", spelling)) == expected
    out = StringIO()
    call_command("explain", SignUp.objects.get(user_id=signup_id.hex).user_id, stdout=out)
    assert str(signup_id) in out.getvalue()


def test_explain_finds_an_unconfirmed_sign_up_by_a_user_id_of_32_hex_digits(client: Client) -> None:
    user_id = uuid4().hex
    UnconfirmedSignUp.objects.create(
        id=uuid4(), user_id=user_id, user_id_key=user_id, email="x@example.com", user_name="X", role="ROLE_USER",
        password="not a hash", created_at=timezone.now(),
    )  # fmt: skip
    out = StringIO()
    call_command("explain", user_id, stdout=out)
    assert user_id in out.getvalue()
    assert found(client, "authsvc/unconfirmedsignup", user_id.upper()) == [user_id]


# --- Unprintable text

# Contents of a message, and the text that is shown for each.
VALUES = {
    "half an emoji": (b'{"userName": "\\ud83d", "x": 1}', "\\ud83d"),
    "half an emoji as a name": (b'{"\\udc00": 1}', "\\udc00"),
    "no UTF-8": (b'{"reason":"\xff"}', "\\xff"),
    "half an emoji in CESU-8": (b'{"reason":"\xed\xa0\xbd"}', "\\xed\\xa0\\xbd"),
    "a NUL": (b'{"reason":"\\u0000"}', "\\u0000"),
    "NUL bytes": (b"\x00\x00", "\x00"),
    "a large number": (b'{"attempt": ' + b"9" * 5000 + b"}", "9" * 100),
    "a number beyond doubles": (b'{"attempt": 1e999}', "1e999"),
    "NaN": (b'{"attempt": NaN}', "NaN"),
    "a deep nest": (b"[" * 20_000, "[[["),
    "another shape": (b'{"signupId": [], "services": {}}', "signupId"),
    "UTF-16": ('{"userId": "김"}'.encode("utf-16"), "\\xff\\xfe"),
}


@pytest.fixture
def topics(settings: Any, patient: None) -> None:
    settings.KAFKA_PREFIX = f"odd-{uuid4()}-"
    make_topics([NEW_USER_REQUESTED, NEW_USER_ANSWERED])


def put_about(user_id: str, topic: str, *values: bytes, **more: Any) -> None:
    """Publish like the product's producers: the key determines the partition."""
    put(topic, *values, key=user_id, partition=murmur2(user_id.encode(), PARTITIONS), **more)


def let_choose_time(topic: str) -> None:
    """Let publishers choose any time, as in topics of older Kafka versions: by default, Kafka 4 refuses times more than
    an hour ahead.
    """
    if not django_settings.KAFKA_EMBEDDED:
        configure(topic, "message.timestamp.type", "CreateTime")
        configure(topic, "message.timestamp.after.max.ms", str(2**63 - 1))


def page_of(client: Client, url: str, **query: object) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return html.unescape(response.content.decode())


@on_a_broker
@pytest.mark.usefixtures("topics", "nothing_fails")
def test_a_topic_shows_every_message(client: Client) -> None:
    put(NEW_USER_REQUESTED, *(value for value, _ in VALUES.values()), partition=0, odd=b"\xff\x00\xed\xa0\xbd")
    put(NEW_USER_REQUESTED, b"{}", key="\x00", partition=0)
    text = page_of(client, f"{TOPIC}{NEW_USER_REQUESTED}/")
    for name, (_, shown) in VALUES.items():
        assert shown in text, name


@on_a_broker
@pytest.mark.usefixtures("topics", "nothing_fails")
def test_a_topic_shows_times_outside_the_calendar(client: Client) -> None:
    let_choose_time(NEW_USER_REQUESTED)
    for at in BEYOND:
        put_about("kim", NEW_USER_REQUESTED, b"{}", timestamp_ms=at)
    for query in ({}, {"key": "kim"}, {"since": "2020-01-01T00:00:00"}, {"partition": 0, "offset": 0}):
        text = page_of(client, f"{TOPIC}{NEW_USER_REQUESTED}/", **query)
        if "offset" not in query:
            assert f"{BEYOND[0]} ms" in text
            assert f"{BEYOND[1]} ms" in text


def told(client: Client, signup: SignUp) -> tuple[str, str]:
    """Return the page with the timeline, and the output of `explain`."""
    out = StringIO()
    call_command("explain", str(signup.id), stdout=out)
    return page_of(client, reverse("admin:authsvc_eventtransaction_change", args=[signup.pk])), out.getvalue()


@on_a_broker
@pytest.mark.usefixtures("topics", "nothing_fails")
def test_a_timeline_shows_unreadable_messages(client: Client) -> None:
    signup = save_signup("mina")
    trace = f"00-{signup.id.hex}-00f067aa0ba902b7-01".encode()
    for topic in (NEW_USER_REQUESTED, NEW_USER_ANSWERED):
        put_about("mina", topic, *(value for value, _ in VALUES.values()), traceparent=trace)
        put_about("mina", topic, b"\xff", traceparent=b"\xff")
    for text in told(client, signup):
        assert text.count("Unreadable message") >= 2 * (len(VALUES) - 3)


@on_a_broker
@pytest.mark.usefixtures("topics", "nothing_fails")
def test_a_timeline_shows_messages_with_times_outside_the_calendar(client: Client) -> None:
    signup = save_signup("mina")
    let_choose_time(NEW_USER_REQUESTED)
    value = json.dumps({"signupId": str(signup.id), "attempt": 7}).encode()
    for at in BEYOND:
        put_about("mina", NEW_USER_REQUESTED, value, timestamp_ms=at)
    for text in told(client, signup):
        assert text.count("attempt 7") == len(BEYOND)
        for at in BEYOND[:2]:
            assert f"{at} ms after 1970" in text


def letter(value: bytes | None, timestamp_ms: int | None, offset: int, key: bytes | None = b"mina") -> Incoming:
    topic = next(iter(dead_letter_origins()))
    said = {"dlt-timestamp": b"%d" % (timestamp_ms or 0), "dlt-error": b"\xff\x00", "dlt-message": b"\xed\xa0\xbd"}
    return Incoming(topic, 0, offset, key, value, (*said.items(), ("odd", b"\xff\x00")), timestamp_ms)


@pytest.mark.usefixtures("nothing_fails")
def test_dead_letters_show_every_message_and_time(client: Client) -> None:
    times = (*BEYOND, -(2**62), -62_135_596_800_000, -1, 0, None)
    letters = [letter(value, None, number) for number, (value, _) in enumerate(VALUES.values())]
    letters += [letter(b"{}", at, 100 + number, key=b"\xff\x00") for number, at in enumerate(times)]
    store_letters(letters, dead_letter_origins())
    assert DeadLetter.objects.count() == len(letters)
    page_of(client, "/admin/eventbus/deadletter/")
    for row, (_, shown) in zip(DeadLetter.objects.order_by("letter_offset"), VALUES.values(), strict=False):
        assert shown in page_of(client, reverse("admin:eventbus_deadletter_change", args=[row.pk]))
    for row in DeadLetter.objects.all():
        page_of(client, reverse("admin:eventbus_deadletter_change", args=[row.pk]))
        call_command("dead_letters", "show", str(row.pk), stdout=StringIO())
    call_command("dead_letters", "list", stdout=StringIO())


# --- Odd URLs

ODD = (
    "", "0", "-1", "1e3", "99999999999999999999", "9.9.9", "x", "é", "\x00", "\ud83d", "%", "'", "[", "null", "2^63",
    "😀", "9223372036854775808", "0000-00-00", "9999-12-31", "0001-01-01", "9999-12-31 23:59:59+00:00", "a" * 3000,
)  # fmt: skip
FILTERS = (
    "lights", "begun", "failure", "state__exact", "group", "error", "topic", "put_aside_at__gte", "put_aside_at__lt",
    "date_joined__gte", "date_joined__isnull", "is_active__exact", "role__exact", "created_at__gte", "span",
    "app_label", "all", "_facets", "_popup", "_to_field", "_changelist_filters", "next", "term", "unknown",
)  # fmt: skip
FIELDS = (
    "action", "_selected_action", "select_across", "index", "service", "reason", "post", "user_id", "email",
    "user_name", "role", "name", "form-TOTAL_FORMS", "password1", "password2", "again", "q", "_save",
)  # fmt: skip
RAW = ("%ff=%ff", "q=%ff%fe", "&&==&", "p=1&p=2", "=", "a;b", "e=1", "o=-1.2.-3", "all=x&p=-1", "q=%ED%A0%BD")


def odd_queries(*, of_topic: bool) -> Iterator[str]:
    yield from RAW
    for value in ODD:
        spelled = quote(value, errors="surrogatepass")
        if of_topic:
            yield f"partition=0&offset={spelled}"
            yield f"partition={spelled}&key={spelled}&since={spelled}&limit={spelled}"
        else:
            yield f"q={spelled}"
            yield f"p={spelled}"
            yield f"o={spelled}"
    if not of_topic:
        for name in FILTERS:
            for value in ("-1", "99999999999999999999", "\x00", "9999-12-31 23:59:59+00:00", "0001-01-01"):
                yield f"{name}={quote(value)}"


@pytest.fixture
def rows(people: None) -> Mapping[str, object]:
    """The key of one row of each model, by the name of its pages."""
    save_signup("mina")
    store_letters([letter(b"\xff", 0, 1)], dead_letter_origins())
    return {
        f"{model._meta.app_label}_{model._meta.model_name}": row.pk
        for model in admin.site._registry
        if model._meta.managed and (row := model._default_manager.first())
    }


def page_urls(rows: Mapping[str, object], odd: Sequence[str]) -> Iterator[str]:
    """Every URL of the administration, with the ID of an existing row and with invalid ones."""

    def walk(patterns: Sequence[URLPattern | URLResolver]) -> Iterator[URLPattern]:
        for each in patterns:
            yield from walk(each.url_patterns) if isinstance(each, URLResolver) else [each]

    for pattern in walk(admin.site.get_urls()):
        names = pattern.pattern.converters or dict.fromkeys(pattern.pattern.regex.groupindex)
        if not pattern.name or pattern.name == "logout":
            continue
        model = pattern.name.rpartition("_")[0]
        known = {"app_label": "authsvc", "name": NEW_USER_REQUESTED, "content_type_id": "1"}
        for value in (None, *odd) if names else (None,):
            own = {name: known.get(name, rows.get(model, "1")) for name in names}
            with suppress(NoReverseMatch, ValueError):  # values that no URL of this page can contain
                yield reverse(f"admin:{pattern.name}", kwargs=own if value is None else dict.fromkeys(names, value))


IDS = (
    "0", "-1", "99999999999999999999", "x", "é", "_00", "_5F", "_ZZ", "00000000-0000-0000-0000-000000000000", "1e3",
    "a" * 3000,
)  # fmt: skip


@on_a_broker
@pytest.mark.usefixtures("topics", "nothing_fails")
def test_no_page_fails_for_an_invalid_object_id(client: Client, rows: Mapping[str, object]) -> None:
    urls = list(page_urls(rows, IDS))
    assert len(urls) > 200
    answered = {url: client.get(url).status_code for url in urls if "stream" not in url}
    assert {url: status for url, status in answered.items() if status >= 500} == {}


@pytest.mark.filterwarnings("ignore:DateTimeField")
@pytest.mark.usefixtures("nothing_fails")
@pytest.mark.parametrize("zone", ["Asia/Seoul", "America/Los_Angeles"])
def test_no_list_fails_for_a_date_at_the_end_of_the_calendar(client: Client, settings: Any, zone: str) -> None:
    settings.TIME_ZONE = zone
    fields = {
        "authsvc/user": "date_joined", "chatsvc/chatuser": "created_at", "eventbus/deadletter": "put_aside_at",
    }  # fmt: skip
    for model, field in fields.items():
        for at in ("0001-01-01", "9999-12-31", "9999-12-31 23:59:59", "0000-00-00"):
            for lookup in ("gte", "lt"):
                response = client.get(f"/admin/{model}/", {f"{field}__{lookup}": at})
                assert response.status_code in (200, 302, 400)


@pytest.mark.filterwarnings("ignore:DateTimeField")
@on_a_broker
@pytest.mark.usefixtures("topics", "nothing_fails")
def test_no_page_fails_for_an_odd_query(client: Client, rows: Mapping[str, object]) -> None:
    put(NEW_USER_REQUESTED, b"{}", key="kim")
    failed = {}
    for url in page_urls(rows, ()):
        if "stream" in url:
            continue  # its thread can't see this test's transaction
        # A page of one object has no query of its own.
        step = 20 if any(part in url for part in ("/add/", "/change/", "/delete/", "/history/", "/password/")) else 2
        for query in list(odd_queries(of_topic="/topic/user" in url))[::step]:
            status = client.get(f"{url}?{query}").status_code
            if status >= 500:
                failed[f"{url}?{query}"] = status
    assert failed == {}


@on_a_broker
@pytest.mark.usefixtures("topics", "nothing_fails")
def test_no_page_fails_for_an_odd_form(client: Client, rows: Mapping[str, object]) -> None:
    failed = {}
    for url in page_urls(rows, ()):
        if "stream" in url or url == "/admin/login/":
            continue
        for value in ("", "\x00", "\ud83d", "99999999999999999999", "x" * 3000, "é"):
            body = urlencode(dict.fromkeys(FIELDS, value), errors="surrogatepass")
            status = client.post(url, body, content_type="application/x-www-form-urlencoded").status_code
            if status >= 500:
                failed[f"{url} {value[:20]!r}"] = status
    assert failed == {}


@pytest.mark.parametrize("at", [datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)])
@pytest.mark.usefixtures("nothing_fails")
def test_lists_show_rows_of_every_time(client: Client, at: datetime) -> None:
    signup = save_signup("mina")
    SignUp.objects.filter(pk=signup.pk).update(created_at=at)
    User.objects.filter(user_id="mina").update(date_joined=at, last_login=at)
    for url in ("/admin/authsvc/eventtransaction/", "/admin/authsvc/user/"):
        page_of(client, url)
