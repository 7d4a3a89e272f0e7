import time
from uuid import RFC_4122, UUID

import pytest
from django.core import signing
from django.http import HttpResponse
from pytest_django.fixtures import Settings

from authsvc.accounts import last_signup
from authsvc.api import tickets as auth_tickets
from signup_sync.front import tickets


def test_a_page_ticket_opens_its_signup_to_its_browser(signup_id: UUID, visitor: str) -> None:
    assert tickets.open_page_ticket(tickets.page_ticket(signup_id, visitor), visitor) == signup_id


@pytest.mark.parametrize("stranger", [None, "", "somebody else"])
def test_it_opens_nothing_to_another_browser(signup_id: UUID, visitor: str, stranger: str | None) -> None:
    with pytest.raises(tickets.TicketError):
        tickets.open_page_ticket(tickets.page_ticket(signup_id, visitor), stranger)


def test_a_ticket_that_was_changed_or_made_up_is_refused(signup_id: UUID, visitor: str) -> None:
    genuine = tickets.page_ticket(signup_id, visitor)
    for forged in (genuine[:-1], "x" + genuine, "nonsense", "", signing.dumps({"s": str(signup_id), "b": visitor})):
        with pytest.raises(tickets.TicketError):
            tickets.open_page_ticket(forged, visitor)


def test_an_old_ticket_opens_nothing_but_the_form_still_knows_its_signup(
    signup_id: UUID, visitor: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = tickets.page_ticket(signup_id, visitor)
    later = time.time() + settings.TICKET_MAX_AGE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(tickets.TicketExpiredError):
        tickets.open_page_ticket(ticket, visitor)
    assert tickets.signup_id_of(ticket, visitor) == signup_id


def test_a_cookie_that_is_not_ours_is_no_browser(visitor: str) -> None:
    assert tickets.browser_of({}) is None
    assert tickets.browser_of({tickets.BROWSER_COOKIE: visitor}) is None
    assert tickets.browser_of({tickets.BROWSER_COOKIE: tickets._cookie_signer.sign(visitor)}) == visitor


def test_auth_opens_a_signup_to_the_ticket_that_the_front_issues(signup_id: UUID) -> None:
    assert auth_tickets.opens(tickets.bearer_ticket(signup_id), signup_id)
    assert not auth_tickets.opens(tickets.bearer_ticket(tickets.new_signup_id()), signup_id)
    assert not auth_tickets.opens(tickets.page_ticket(signup_id, "browser"), signup_id)


def test_the_successor_of_a_signup_is_always_the_same_and_no_one_can_guess_it(
    signup_id: UUID, settings: Settings
) -> None:
    after = tickets.successor_of(signup_id)
    assert after == tickets.successor_of(signup_id)
    assert (after.version, after.variant) == (7, RFC_4122)
    assert after.int >> 80 == signup_id.int >> 80  # the time
    chain = {signup_id, after, tickets.successor_of(after), tickets.successor_of(tickets.new_signup_id())}
    assert len(chain) == 4
    settings.SECRET_KEY = "another"
    assert tickets.successor_of(signup_id) != after


def test_auth_reads_the_user_id_that_the_front_has_left_in_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    response = HttpResponse()
    tickets.remember_user_id(response, "홍길동")
    left = {name: morsel.value for name, morsel in response.cookies.items()}
    assert last_signup.user_id_of(left) == "홍길동"
    assert last_signup.user_id_of({}) == ""
    forged = {tickets.USER_ID_COOKIE: "Your-account-is-locked-call-555"}
    assert last_signup.user_id_of(forged) == ""
    of_other_purpose = {tickets.USER_ID_COOKIE: tickets.page_ticket(tickets.new_signup_id(), "somebody")}
    assert last_signup.user_id_of(of_other_purpose) == ""
    later = time.time() + last_signup.USER_ID_MAX_AGE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert last_signup.user_id_of(left) == ""
