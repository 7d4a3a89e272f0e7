import time
from uuid import RFC_4122, UUID

import pytest
from django.core import signing
from django.http import HttpResponse
from pytest_django.fixtures import Settings

from authsvc import tickets as auth_tickets
from authsvc.accounts import last_signup
from signup_sync.front import tickets


def test_a_page_ticket_opens_its_sign_up_to_its_browser(signup_id: UUID, visitor: str) -> None:
    assert tickets.open_page_ticket(tickets.page_ticket(signup_id, visitor), visitor) == signup_id


@pytest.mark.parametrize("stranger", [None, "", "somebody else"])
def test_a_page_ticket_opens_nothing_to_another_browser(signup_id: UUID, visitor: str, stranger: str | None) -> None:
    with pytest.raises(tickets.TicketError):
        tickets.open_page_ticket(tickets.page_ticket(signup_id, visitor), stranger)


def test_a_ticket_that_was_changed_or_made_up_is_refused(signup_id: UUID, visitor: str) -> None:
    genuine = tickets.page_ticket(signup_id, visitor)
    for forged in (genuine[:-1], "x" + genuine, "nonsense", "", signing.dumps({"s": str(signup_id), "b": visitor})):
        with pytest.raises(tickets.TicketError):
            tickets.open_page_ticket(forged, visitor)


def test_an_old_ticket_opens_nothing_but_the_form_still_knows_its_sign_up(
    signup_id: UUID, visitor: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = tickets.page_ticket(signup_id, visitor)
    later = time.time() + settings.TICKET_MAX_AGE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(tickets.TicketExpiredError):
        tickets.open_page_ticket(ticket, visitor)
    assert tickets.signup_id_of(ticket, visitor) == signup_id


def test_a_forged_browser_cookie_is_ignored(visitor: str) -> None:
    assert tickets.browser_of({}) is None
    assert tickets.browser_of({tickets.BROWSER_COOKIE: visitor}) is None
    assert tickets.browser_of({tickets.BROWSER_COOKIE: tickets._cookie_signer.sign(visitor)}) == visitor


def test_auth_opens_a_sign_up_to_the_ticket_that_the_front_issues(signup_id: UUID) -> None:
    assert auth_tickets.opens(tickets.bearer_ticket(signup_id), signup_id)
    assert not auth_tickets.opens(tickets.bearer_ticket(tickets.new_signup_id()), signup_id)
    assert not auth_tickets.opens(tickets.page_ticket(signup_id, "browser"), signup_id)


def test_the_successor_of_a_sign_up_is_always_the_same_and_no_one_can_guess_it(
    signup_id: UUID, settings: Settings
) -> None:
    after = tickets.successor_of(signup_id, "browser")
    assert after == tickets.successor_of(signup_id, "browser")
    assert (after.version, after.variant) == (7, RFC_4122)
    assert after.int >> 80 == signup_id.int >> 80  # the time
    others = (after, tickets.new_signup_id())
    chain = {signup_id, after, *(tickets.successor_of(each, "browser") for each in others)}
    assert len(chain) == 4
    assert tickets.successor_of(signup_id, "another browser") != after
    settings.SECRET_KEY = "another"
    assert tickets.successor_of(signup_id, "browser") == after


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


def test_a_page_ticket_is_as_old_as_the_time_since_it_was_issued(
    signup_id: UUID, visitor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = 1_800_000_000
    monkeypatch.setattr(time, "time", lambda: began)
    ticket = tickets.page_ticket(signup_id, visitor)
    for after, is_older, is_recent in ((0, False, True), (10, False, True), (11, True, False), (-10, False, False)):
        monkeypatch.setattr(time, "time", lambda after=after: began + after)
        assert (tickets.is_older(ticket, 10), tickets.is_recent(ticket, 10)) == (is_older, is_recent), after


def test_the_token_of_a_mail_confirms_its_sign_up_for_as_long_as_the_setting_says(
    signup_id: UUID, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SIGNUP_CONFIRM_HOURS = 2
    sent_at = 1_800_000_000
    token = tickets._confirmation_signer.sign(f"{signup_id.hex}-{sent_at * 1_000_000}")
    for after in (0, 7199.5):
        monkeypatch.setattr(time, "time", lambda after=after: sent_at + after)
        assert tickets.confirmed_by(token) == signup_id
    monkeypatch.setattr(time, "time", lambda: sent_at + 7200)
    with pytest.raises(tickets.TicketExpiredError):
        tickets.confirmed_by(token)
    for forged in ("", "nonsense", f"{signup_id.hex}-{sent_at * 1_000_000}", f"x{token}", tickets.signed_by_front()):
        with pytest.raises(tickets.TicketError) as refused:
            tickets.confirmed_by(forged)
        assert refused.type is tickets.TicketError


def test_auth_accepts_the_fronts_mark_of_a_request_without_an_address(signup_id: UUID) -> None:
    assert auth_tickets.is_from_front(tickets.signed_by_front())
    assert auth_tickets.forwarded_address(tickets.signed_by_front(), signup_id) is None
    assert auth_tickets.forwarded_address(tickets.signed_address(signup_id, ""), signup_id) == ""


@pytest.mark.parametrize("is_production", [True, False])
def test_its_cookies_are_for_our_own_pages_and_in_production_for_https_only(
    settings: Settings, visitor: str, is_production: bool
) -> None:
    settings.PRODUCTION = is_production
    response = HttpResponse()
    tickets.remember_browser(response, visitor)
    tickets.remember_user_id(response, "kim")
    browser, user_id = response.cookies[tickets.BROWSER_COOKIE], response.cookies[tickets.USER_ID_COOKIE]
    for cookie in (browser, user_id):
        assert (cookie["httponly"], cookie["samesite"], bool(cookie["secure"])) == (True, "Lax", is_production)
    assert (browser["max-age"], user_id["max-age"]) == ("", tickets.USER_ID_MAX_AGE)
    assert tickets.browser_of({tickets.BROWSER_COOKIE: browser.value}) == visitor


def test_each_random_bit_of_a_successor_depends_on_its_sign_up_and_no_other_bit_does() -> None:
    begun = tickets.new_signup_id()
    same_time = [UUID(int=begun.int ^ number) for number in range(64)]
    after = [tickets.successor_of(each, "browser") for each in same_time]
    assert len(set(after)) == len(after)
    assert {(each.version, each.variant) for each in after} == {(7, RFC_4122)}
    assert {each.int >> 80 for each in after} == {begun.int >> 80}
    varying = 0
    for each in after:
        varying |= each.int ^ after[0].int
    # All bits but those of time, version and variant (RFC 9562, 5.7).
    assert varying == (1 << 80) - 1 & ~(0xF << 76) & ~(0b11 << 62)


def test_the_contents_of_one_form_have_a_chain_of_sign_ups_that_begins_with_its_own(signup_id: UUID) -> None:
    chain = list(tickets.signup_ids_of(signup_id, "browser"))
    assert chain[0] == signup_id
    assert chain[1:] == [tickets.successor_of(each, "browser") for each in chain[:-1]]
    assert len(chain) == tickets.CONTENTS_MAX
