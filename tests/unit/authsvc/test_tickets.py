"""Auth's tickets and signatures: the access that they give, and their lifetimes to the second."""

import time
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from django.core import signing
from pytest_django.fixtures import Settings

from authsvc import tickets
from authsvc.accounts import last_signup
from signup_sync.front import tickets as front

SIGNUP = UUID("5c0e1f4e-8a63-4a0c-9d6e-3f2b7a1d9c05")
After = Callable[[float], None]


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> After:
    """Move the clock to so many seconds after a signature that was made at a whole second."""
    began = 1_800_000_000
    monkeypatch.setattr(time, "time", lambda: began)

    def move(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: began + seconds)

    return move


def test_a_ticket_opens_its_sign_up_and_no_other() -> None:
    ticket = tickets.issue_ticket(SIGNUP)
    assert tickets.opens(ticket, SIGNUP)
    assert not tickets.opens(ticket, uuid4())


@pytest.mark.parametrize("ticket", ["", "nonsense", str(SIGNUP), f"{SIGNUP}:", f"{SIGNUP}:1vMpQx:forged"])
def test_an_invalid_ticket_opens_nothing(ticket: str) -> None:
    assert not tickets.opens(ticket, SIGNUP)


def test_the_signature_of_something_else_is_no_ticket() -> None:
    for salt in ("signup-address", "signup-user-id", "another"):
        assert not tickets.opens(signing.TimestampSigner(salt=salt).sign(str(SIGNUP)), SIGNUP)


def test_a_ticket_opens_until_it_is_as_old_as_the_setting_says(after: After, settings: Settings) -> None:
    settings.TICKET_MAX_AGE = 100
    ticket = tickets.issue_ticket(SIGNUP)
    after(100)
    assert tickets.opens(ticket, SIGNUP)
    after(101)
    assert not tickets.opens(ticket, SIGNUP)


def test_the_front_speaks_for_an_address_for_five_minutes(after: After) -> None:
    header = front.signed_address(SIGNUP, "203.0.113.9")
    assert tickets.ADDRESS_MAX_AGE == 300
    after(300)
    assert tickets.forwarded_address(header, SIGNUP) == "203.0.113.9"
    assert tickets.is_from_front(header)
    after(301)
    assert tickets.forwarded_address(header, SIGNUP) is None
    assert not tickets.is_from_front(header)


@pytest.mark.parametrize("header", ["", "203.0.113.9", f"{SIGNUP} 203.0.113.9", f"{SIGNUP} 203.0.113.9:1vMpQx:forged"])
def test_nobody_else_speaks_for_an_address(header: str) -> None:
    assert tickets.forwarded_address(header, SIGNUP) is None
    assert not tickets.is_from_front(header)


def test_a_signed_address_counts_for_one_sign_up_only() -> None:
    assert tickets.forwarded_address(front.signed_address(SIGNUP, "203.0.113.9"), UUID(int=1)) is None


def test_the_user_id_that_signed_up_is_known_for_an_hour(after: After) -> None:
    left = {last_signup.USER_ID_COOKIE: signing.dumps("kim", salt="signup-user-id")}
    assert last_signup.USER_ID_MAX_AGE == front.USER_ID_MAX_AGE == 3600
    after(3600)
    assert last_signup.user_id_of(left) == "kim"
    after(3601)
    assert last_signup.user_id_of(left) == ""
