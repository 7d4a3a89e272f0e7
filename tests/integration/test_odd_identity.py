"""Identity: one mailbox is one account in every spelling, and a login works in every spelling of a sign-up."""

import unicodedata

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.test import Client

from authsvc.api.problems import Problem
from authsvc.api.signup_requests import complaints, read_signup
from runtime.equality import normalize_email, user_id_key

FORM = {"userId": "kim", "userPw": "correct horse 9", "email": "kim@example.org", "userName": "Kim"}

MAILBOXES = {
    "kim@xn--bcher-kva.example": [
        "kim@bücher.example", "kim@BÜCHER.example", "KIM@xn--BCHER-kva.EXAMPLE", "kim@bu\u0308cher.example",
        "kim@bücher。example", "kim@bücher．example", "kim@ｂücher.example", " kim@bücher.example ",
    ],
    "lee@xn--caf-dma.example": ["lee@café.example", "lee@cafe\u0301.example", "Lee@CAFÉ.example"],
    "a.b+c@example.org": ["A.b+C@Example.ORG", "a.b+c@ｅxample.org", "a.b+c@example｡org"],
}  # fmt: skip


def email_of(typed: str) -> str:
    return read_signup(FORM | {"email": typed}).email


@pytest.mark.parametrize("mailbox", MAILBOXES)
def test_one_mailbox_is_one_account_in_every_spelling(mailbox: str) -> None:
    assert {email_of(typed) for typed in MAILBOXES[mailbox]} == {mailbox}
    # As the password reset looks for it.
    assert {normalize_email(typed) for typed in MAILBOXES[mailbox]} == {mailbox}


@pytest.mark.parametrize(
    "typed",
    [
        "kim@example.org\u200b", "k\u00adim@example.org", "kim@exa\u00admple.org\u200b", "kim@example.org.",
        "ｋim@example.org", "kim＠example.org", "kim@xn--a.example", "kim@bücher..example", "kim@xn--example-.org",
        "\ufeffkim@example.org", "kïm@example.org", '"kim"@example.org', "kim(x)@example.org", "kim@[127.0.0.1]",
        "kim@-x.org", "kim@",
    ],
)  # fmt: skip
def test_another_spelling_of_a_mailbox_is_no_second_account(typed: str) -> None:
    """It is refused, or counts as the same address."""
    try:
        email = email_of(typed)
    except Problem as refused:
        pointers = [error.pointer for error in refused.errors]
    else:
        pointers = [] if email == "kim@example.org" else [email]
    assert pointers in ([], ["/email"])


@pytest.mark.parametrize("hidden", ["\u115f", "\u3164", "\u200b", "\u00ad", "\u2060", "\ufe0f", "\u202e", "\U000e0041"])
def test_user_ids_and_names_with_invisible_characters_are_refused(hidden: str) -> None:
    for name, text in {"userId": f"plain1{hidden}", "userName": f"Kim{hidden}"}.items():
        with pytest.raises(Problem) as refused:
            read_signup(FORM | {name: text})
        assert [error.pointer for error in refused.value.errors] == [f"/{name}"]


SCRIPTS = (
    "กิตติ",
    "नमिता",
    "김민아",
    "محمد",
    "தமிழ்",
    "Nguyễn",
    "ᠮᠣᠩᠭᠣᠯ",
    "မြန်မာ",
    "日本語",
    "Ελένη",
    "Straße",
    "ｗｉｄｅ１",
)


@pytest.mark.parametrize("user_id", SCRIPTS)
def test_every_script_is_accepted_by_the_form_and_the_api_alike(user_id: str) -> None:
    for form in ("NFC", "NFD"):
        typed = unicodedata.normalize(form, user_id)
        assert complaints(FORM | {"userId": typed}) == {}
        assert user_id_key(read_signup(FORM | {"userId": typed}).user_id) == user_id_key(user_id)


@pytest.mark.django_db
@pytest.mark.parametrize("user_id", [*SCRIPTS, "가각간갇갈갉갊감갑값갓"])
@pytest.mark.parametrize("path", ["/login/", "/admin/login/"])
def test_a_person_who_signed_up_can_log_in_with_any_spelling(path: str, user_id: str) -> None:
    request = read_signup(FORM | {"userId": user_id})
    get_user_model().objects.create_user(request.user_id, request.email, request.password, is_staff=True)
    for case in {user_id, user_id.upper(), user_id.lower()}:
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            typed = unicodedata.normalize(form, case)
            client = Client()
            response = client.post(path, {"username": typed, "password": request.password})
            assert (response.status_code, "_auth_user_id" in client.session) == (302, True), typed


@pytest.mark.django_db
def test_the_database_refuses_a_second_user_of_one_mailbox() -> None:
    users = get_user_model().objects
    users.create_user("kim", "kim@bücher.example", "correct horse 9")
    second = get_user_model()(user_id="lee", email="KIM@xn--bcher-kva.example")
    with pytest.raises(ValidationError) as refused:
        second.full_clean()
    assert "This email address is taken." in refused.value.messages
