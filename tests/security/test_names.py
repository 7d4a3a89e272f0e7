"""Names that can't deceive: no invisible characters, no mixed scripts, no reserved user IDs; one mailbox has one
account (attacks: userId admin, root, аdmin with a Cyrillic а; docs/adr/0039)."""

import unicodedata
from importlib import import_module
from types import SimpleNamespace
from urllib.parse import urlencode
from uuid import UUID

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.test import Client
from django.utils.translation import override

from authsvc.accounts.forms import LoginForm
from authsvc.api.problems import Problem
from authsvc.api.signup_requests import read_signup
from authsvc.identity import validate_address, validate_not_reserved, validate_user_id, validate_user_name
from authsvc.lookalikes import looks_reserved
from authsvc.models import SignUp, User
from chatsvc.models import ChatUser
from runtime.equality import normalize_email, normalize_user_id
from tests.client import filled_form, request
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN, log_in, post, settled, statuses
from tests.signups import save_signup
from tests.stack import Stack

# Invisible characters: fillers, joiners, directions, tags, variation selectors, blanks, separators, a soft hyphen.
INVISIBLE = [
    "\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u180b", "\u180e", "\u200b", "\u200c", "\u200d",
    "\u200e", "\u2028", "\u202e", "\u2060", "\u2063", "\u2066", "\u206f", "\u2800", "\u3164", "\ufe00", "\ufe0f",
    "\ufeff", "\uffa0", "\ufff0", "\ufffc", "\ue000", "\U0001d159", "\U000e0001", "\U000e0041", "\U000e0100",
]  # fmt: skip
# Real spellings of names: each in one script, with the marks that it needs.
WRITTEN = [
    "mina.k", "Việt-Đức", "김민아", "김mina", "金敏娥", "ミナ", "みな美奈Mina", "ㄇㄧ美", "กิตติ", "नमिता", "क्षत्रिय",
    "மீனா", "ကျော်", "Ọlá", "мина", "Μίνα", "مريم", "מינה", "მინა", "ሚና", "ünal_99", "김민아99",
]  # fmt: skip
# Two scripts that are not written together, most of them deceptive.
MIXED = [
    "аdmin",
    "mіna",
    "minа",
    "Μina",
    "김ひ",
    "ㄇひ",
    "नmina",
    "ミナ김",
    "кim",
    "ａdmіn",
    "mina٣",
    "նina",
    "a\u0301а",
]
RESERVED = [
    "admin", "Admin", "ADMIN", "root", "ｒｏｏｔ", "adm1n", "ADMlN", "r00t", "ad.min", "r-o-o-t", "admin_", "ádmin",
    "aḍmin", "supp0rt", "system", "5ystem", "관리자", "관.리.자",
    # Of one script each: small capitals, strokes and hooks, and Cyrillic alone.
    "ᴀdmin", "ʀoot", "ᴀᴅᴍɪɴ", "ꜱʏꜱᴛᴇᴍ", "ʀᴏᴏᴛ", "ɴᴜʟʟ", "ađmin", "røøt", "rooŧ", "ɑɗmin", "ADMƗN",
    "ѕуѕтем", "ЅУЅТЕМ", "һеӏр",
]  # fmt: skip


def refusal(document: dict[str, str]) -> list[tuple[str, str]]:
    """The errors of `POST /user`, by field."""
    try:
        read_signup(new_person().form | document)
    except Problem as problem:
        return [(error.pointer, error.detail) for error in problem.errors]
    return []


@pytest.mark.parametrize("user_id", WRITTEN)
def test_common_spellings_of_user_ids_are_accepted(user_id: str):
    for form in ("NFC", "NFD"):
        typed = unicodedata.normalize(form, user_id)
        assert refusal({"userId": typed}) == []
        assert normalize_user_id(typed) == unicodedata.normalize("NFKC", user_id)


@pytest.mark.parametrize("user_id", MIXED, ids=ascii)
def test_a_user_id_mixes_no_scripts(user_id: str):
    [(pointer, words)] = refusal({"userId": user_id})
    assert pointer == "/userId"
    assert "one script" in words


@pytest.mark.parametrize("character", INVISIBLE, ids=ascii)
@pytest.mark.parametrize("name", ["userId", "userName", "email"])
def test_names_contain_no_invisible_characters(name: str, character: str):
    for text in (f"mi{character}na", f"mina{character}", f"김{character}민아", f"{character}{character}"):
        typed = f"{text}@example.org" if name == "email" else text
        if text != text.strip():
            continue  # a separator of lines counts as a blank, and blanks around a name are dropped
        # NFKC may turn one into another (a halfwidth filler into a filler), or leave it out of a domain.
        assert [pointer for pointer, _ in refusal({name: typed})] == [f"/{name}"], ascii(text)


def test_a_stored_domain_has_no_invisible_characters():
    for character in INVISIBLE:
        address = normalize_email(f"mina@exa{character}mple.org")
        try:
            validate_address(address)
        except ValidationError:
            continue
        assert address == "mina@example.org"


@pytest.mark.parametrize("name", ["علی‌رضا", "क्‍ष", "ന്‍", "മീന്\u200d x", "김　민수", "O'Neil-Núñez 👋", "กิตติ"])
def test_a_name_may_have_a_joiner_where_its_spelling_needs_it(name: str):
    validate_user_name(name)


@pytest.mark.parametrize("name", ["mi\u200dna", "a\u200c", "\u200dक", "علی\u200d", "👨\u200d👩", "김\u200c민"])
def test_a_joiner_elsewhere_is_invisible(name: str):
    with pytest.raises(ValidationError, match="invisible"):
        validate_user_name(name)


@pytest.mark.parametrize(
    "user_id", ["1\u0301a", "a" + "\u0323\u0302\u0301\u0300\u0303\u0304", "q\u0323\u0323", "a.\u0e34b", "q\u0302\u0302"]
)
def test_marks_without_a_letter_too_many_or_repeated_marks_are_refused(user_id: str):
    with pytest.raises(ValidationError, match="after a letter"):
        validate_user_id(user_id)


def test_digits_of_two_scripts_in_a_user_id_are_refused():
    validate_user_id("नमिता९९")
    with pytest.raises(ValidationError, match="digits of only one script"):
        validate_user_id("नमिता9९")


@pytest.mark.parametrize("user_id", RESERVED, ids=ascii)
def test_nobody_signs_up_with_a_reserved_user_id_or_its_look_alike(user_id: str):
    assert refusal({"userId": user_id}) == [("/userId", "This user ID is reserved. Choose another one.")]
    with override("ko"):
        assert "예약된" in refusal({"userId": user_id})[0][1]


@pytest.mark.parametrize(
    "user_id", ["admiral", "administration", "rooter", "roo", "mina", "systems", "관리", "helpful"]
)
def test_a_user_id_that_only_begins_like_a_reserved_one_is_free(user_id: str):
    assert refusal({"userId": user_id}) == []


def test_a_setting_lists_the_reserved_user_ids(settings):
    settings.RESERVED_USER_IDS = ["Vorstand", "мир"]
    assert looks_reserved("v0rstand")
    assert looks_reserved("мир")
    assert not looks_reserved("admin")
    settings.RESERVED_USER_IDS = []
    validate_not_reserved("root")


def test_letters_of_another_script_alone_can_look_like_a_reserved_user_id(settings):
    settings.RESERVED_USER_IDS = ["cop"]
    # All Cyrillic, so no script is mixed.
    assert looks_reserved("сор")
    assert looks_reserved("СОР")


@pytest.mark.django_db
def test_an_administrator_may_give_a_reserved_user_id_to_somebody(monkeypatch, capsys):
    for name, value in (("USER_ID", "admin"), ("EMAIL", "admin@example.org"), ("PASSWORD", "correct horse 9")):
        monkeypatch.setenv(f"ADMIN_{name}", value)
    call_command("make_admin")
    client = Client()
    client.force_login(User.objects.get(user_id="admin"))
    fields = {"user_id": "root", "email": "root@example.org", "user_name": "Root", "role": "ROLE_USER"}
    passwords = {"usable_password": "true", "password1": "correct horse 9", "password2": "correct horse 9"}
    answer = client.post("/admin/authsvc/user/add/", fields | passwords)
    assert answer.status_code == 302, answer.content
    assert User.objects.filter(user_id="root").exists()


@pytest.mark.django_db
def test_a_user_from_before_the_rule_can_be_deactivated():
    User.objects.bulk_create(
        [User(user_id="аdmin", user_id_key="аdmin", email="a@x.local", user_name="A\u200bB", password="!")]
    )
    user = User.objects.get(user_id="аdmin")
    user.is_active = False
    user.full_clean()
    user.user_id = "rооt"
    with pytest.raises(ValidationError):
        user.full_clean()


# --- Addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mina@Example.ORG", "mina@example.org"),
        ("mina@bücher.example", "mina@xn--bcher-kva.example"),
        ("mina@BÜCHER.example", "MINA@XN--BCHER-KVA.example"),
        ("mina@ｅxample．org", "mina@example.org"),
        ("mina@example。org", "mina@example.org"),
        (unicodedata.normalize("NFD", "mina@bücher.example"), "mina@bücher.example"),
        ("mina@한국.example", "mina@xn--3e0b707e.example"),
    ],
)
def test_one_mailbox_is_one_account(one: str, other: str):
    assert normalize_email(one) == normalize_email(other)
    assert normalize_email(one).isascii()
    validate_address(normalize_email(one))
    assert refusal({"email": one}) == []


@pytest.mark.parametrize(
    "address",
    [
        "mina@localhost", "mina@printer.local", "mina@x.invalid", "mina@[127.0.0.1]", '"mi na"@example.org',
        "김@example.org", "mi..na@example.org", ".mina@example.org", "mina@-x.org", "mina@x_y.org", "mina@example.org.",
        "mina@example", "mina@@example.org", "Mina <mina@example.org>", "mina@xn--a.example", "mina@exa mple.org",
        "mina@a.b-.org", f"mina@{'a' * 64}.org", "mina", "@example.org", "mina@",
    ],
)  # fmt: skip
def test_an_invalid_address_is_refused_with_a_message(address: str):
    [(pointer, words)] = refusal({"email": address})
    assert pointer == "/email"
    assert words.endswith((".", "@."))


def test_an_address_in_the_test_domain_is_valid():
    validate_address("mina@example.test")


@pytest.mark.django_db
def test_stored_addresses_are_migrated_to_the_form_that_is_compared():
    rows = {"one": "mina@bücher.example", "two": "kim@한국.example", "other": "kim@xn--3e0b707e.example"}
    User.objects.bulk_create(
        [
            User(user_id=name, user_id_key=name, email=email, user_name=name, password="!")
            for name, email in rows.items()
        ]
    )
    migration = import_module("authsvc.migrations.0006_addresses_in_ascii")
    then = MigrationLoader(connection).project_state(("authsvc", migration.__name__.rpartition(".")[2])).apps
    migration.rewrite(then, SimpleNamespace(connection=connection))
    kept = dict(User.objects.values_list("user_id", "email"))
    assert kept == rows | {"one": "mina@xn--bcher-kva.example"}


# --- The login ---------------------------------------------------------------------------------------------------


def test_a_login_name_of_the_longest_user_id_is_not_cut():
    longest = unicodedata.normalize("NFD", "각" * 32)
    form = LoginForm(None, data={"username": longest, "password": "x"})
    field = form.fields["username"]
    assert int(field.widget.attrs["maxlength"]) >= len(longest) == 96
    assert field.clean(longest) == "각" * 32


@pytest.mark.django_db(databases=["default", "chat"])
@pytest.mark.parametrize(
    ("path", "model"), [("/admin/authsvc/user/add/", User), ("/admin/chatsvc/chatuser/add/", ChatUser)]
)
def test_an_administrator_may_type_a_long_user_id_in_decomposed_hangul(path: str, model: type[User | ChatUser]):
    client = Client()
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", "correct horse 9"))
    passwords = {"usable_password": "true", "password1": "correct horse 9", "password2": "correct horse 9"}
    user = {"user_id": unicodedata.normalize("NFD", "각" * 32), "email": "kak@example.org", "user_name": "Kak"}
    answer = client.post(path, user | {"role": "ROLE_USER", "is_active": "on"} | passwords)
    assert answer.status_code == 302, answer.context["errors"]
    assert model.objects.get(email="kak@example.org").user_id == "각" * 32


# --- By all ways ---------------------------------------------------------------------------------------------------


@pytest.mark.needs("application")
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("userId", "аdmin", "letters of only one script"),
        ("userId", "r00t", "is reserved"),
        ("userId", "a\u3164b", "invisible"),
        ("userName", "mi\u200bna", "invisible"),
        ("email", "mina@printer.local", "valid email address"),
    ],
)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_api_the_check_and_the_form_judge_a_name_alike(
    stack: Stack, person: Person, name: str, text: str, words: str, language: str
):
    typed = person.form | {name: text}
    problem = post(stack, typed, Accept_Language=language)
    assert problem.status == 422
    [error] = problem.json["errors"]
    assert (error["pointer"], language == "ko" or words in error["detail"]) == (f"/{name}", True)
    page = request(stack, "GET", "/signup/")
    cookies = "; ".join(value.partition(";")[0] for value in page.headers.get_all("Set-Cookie", []))
    fields = urlencode(filled_form(page.body.decode(), person) | typed).encode()
    headers = {"Content_Type": "application/x-www-form-urlencoded", "Cookie": cookies, "Accept_Language": language}
    for path in ("/account/check/", "/signup/"):
        answer = request(stack, "POST", path, fields, Accept="application/json", **headers)
        assert answer.json["errors"] == {name: [error["detail"]]}, path


@pytest.mark.needs("application")
def test_a_person_with_a_user_id_of_letters_and_marks_signs_up_and_logs_in(stack: Stack, person: Person):
    person = Person(f"กิตติ{person.user_id[-4:].translate(str.maketrans('abcdef', '123456'))}", *_rest_of(person))
    assert statuses(settled(stack, post(stack, person.form))) == ALL_GREEN
    log_in(stack, person)


def _rest_of(person: Person) -> tuple[str, str, str]:
    return person.email, person.user_name, person.password


# --- The list of sign-ups ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_key_from_the_far_future_does_not_stay_at_the_top_of_the_list():
    client = Client()
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", "correct horse 9"))
    SignUp.objects.all().delete()
    save_signup("first", signup_id=UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"))
    save_signup("second", signup_id=UUID("0195a1c2-7b34-7e10-9d55-3f6c8a2b4e01"))
    shown = client.get("/admin/authsvc/eventtransaction/").context["cl"].result_list
    assert [signup.user_id for signup in shown] == ["second", "first"]
    by_filter = client.get("/admin/authsvc/eventtransaction/?lights=pending").context["cl"].result_list
    assert [signup.user_id for signup in by_filter] == ["second", "first"]
    assert SignUp.objects.count() == 2


def test_a_local_part_is_at_most_as_long_as_mail_servers_accept() -> None:
    validate_address(f"{'a' * 64}@example.com")
    with pytest.raises(ValidationError):
        validate_address(f"{'a' * 65}@example.com")


@pytest.mark.parametrize("name", ["Z" + "\u0301" * 96, "M\u0301\u0302\u0303\u0304\u0305", "\u1ead\u0301\u0302\u0303"])
def test_a_name_with_stacked_marks_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        validate_user_name(name)
