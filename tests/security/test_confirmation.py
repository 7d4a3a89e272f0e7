"""Sign-ups whose address must be confirmed (SIGNUP_CONFIRM=mail), over the whole installation and a mail server."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.header import decode_header, make_header
from email.message import Message
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.client import Answer, events, opened, request, topic_of
from tests.conftest import Person, new_person, new_stack
from tests.e2e.test_page import GREEN, ORANGE, keep_picture, lights, log_in, shown, sign_up_in
from tests.plugin import Backing
from tests.security.mail_servers import Inbox, mail_server
from tests.servers import free_port
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]

WARNING = "WARNING your account is locked https://evil.example/unlock"


@dataclass(frozen=True)
class Installation:
    """An installation that requires confirmation, and its mail server."""

    stack: Stack
    inbox: Inbox

    def post(self, person: Person, key: str | None = None, **changes: str) -> Answer:
        return request(self.stack, "POST", "/user", person.form | changes, **({"Idempotency_Key": key} if key else {}))

    def mails_to(self, person: Person, count: int = 1) -> list[Message]:
        def come() -> list[Message]:
            mails = [mail for mail in self.inbox.mails if mail["To"] == person.email]
            return mails if len(mails) >= count else []

        return eventually(come, what=f"{count} mails to {person.email}")

    def token_of(self, person: Person) -> str:
        """The token in the last mail's link."""
        [token] = re.findall(r"/signup/confirm/([^/\s]+)/", text_of(self.mails_to(person)[-1]))
        return token

    def confirm(self, token: str, password: str) -> Answer:
        return request(self.stack, "POST", "/user/confirmations", {"token": token, "userPw": password})

    def confirm_last(self, person: Person) -> Answer:
        """Use the link of the last mail as the person would."""
        return self.confirm(self.token_of(person), person.password)

    def page(self, token: str, method: str = "GET") -> Answer:
        return request(self.stack, method, f"/signup/confirm/{token}/")

    def has_user(self, person: Person) -> bool:
        return person.email in {row.email for row in self.stack.rows("auth")}

    def events_about(self, person: Person) -> list[bytes]:
        return [each.value for each in topic_of(self.stack, "user.newUser.req") if person.email.encode() in each.value]

    def settled(self, answer: Answer) -> dict[str, str]:
        """The lights of a sign-up, once all are decided."""

        def state() -> dict[str, str] | None:
            now = request(self.stack, "GET", answer.headers["Location"], Signup_Ticket=answer.headers["Signup-Ticket"])
            lights = now.json["services"]
            return {name: light["status"] for name, light in lights.items()} if now.json["complete"] else None

        return eventually(state, what="all lights are decided")


def text_of(mail: Message) -> str:
    payload = mail.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


@pytest.fixture(scope="module")
def here(backing: Backing) -> Iterator[Installation]:
    port = free_port()
    with (
        mail_server(port) as inbox,
        new_stack(backing, SIGNUP_CONFIRM="mail", EMAIL_URL=f"smtp://127.0.0.1:{port}") as stack,
    ):
        yield Installation(stack, inbox)


@pytest.fixture
def stack(here: Installation) -> Stack:
    """For the fixture `page`."""
    return here.stack


# --- A new address of an account ---------------------------------------------------------------------------------


def test_a_new_address_is_used_once_its_owner_opened_the_link_and_the_former_one_is_notified(
    page: Page, here: Installation, person: Person
):
    here.post(person)
    here.confirm_last(person)
    page.goto("/login/")
    log_in(page, person)
    moved = replace(person, email=f"new-{person.email}")
    page.locator("#account-form [name=email]").fill(moved.email)
    page.locator("#account-form [name=password]").fill(person.password)
    page.locator("#account-form [type=submit]").click()
    expect(page.locator(".notice")).to_contain_text(f"We sent a message to {moved.email}.")
    assert here.has_user(person)
    [link] = re.findall(r"http\S+/account/address/\S+", text_of(here.mails_to(moved)[-1]))
    path = urlsplit(link).path
    # A mail scanner opens the link, which changes nothing, and then a stranger, who has to log in.
    for _ in range(2):
        assert request(here.stack, "GET", path).status == 302
    page.goto(path)
    expect(page.locator("main")).to_contain_text(moved.email)
    assert here.has_user(person)
    keep_picture(page, "address.png")
    page.get_by_role("button", name="Use this address").click()
    expect(page.locator("#lights-title")).to_have_text("The changes are saved")
    assert lights(page) == GREEN
    assert (here.has_user(moved), here.has_user(person)) == (True, False)
    subjects = [str(make_header(decode_header(mail["Subject"]))) for mail in here.mails_to(person, 3)]
    assert subjects[1:] == [
        "A new email address was requested for your Signup Sync account",
        "Your Signup Sync email address was changed",
    ]
    page.goto(path)
    expect(page.locator("h1")).to_have_text("This link no longer works")


# --- The page ---------------------------------------------------------------------------------------------------


def test_the_first_page_turns_green_when_the_link_is_confirmed_elsewhere(
    page: Page, browser: Browser, here: Installation, person: Person
):
    sign_up_in(page, person)
    expect(page.locator("#lights-title")).to_have_text("Check your email")
    assert lights(page) == ORANGE
    token = here.token_of(person)
    # A mail scanner opens the link.
    for method in ("GET", "HEAD", "GET"):
        assert here.page(token, method).status == 200
    assert lights(page) == ORANGE
    assert not here.has_user(person)
    assert here.events_about(person) == []

    other = browser.new_context(base_url=here.stack.base_url, locale="ko-KR")
    elsewhere = other.new_page()
    elsewhere.goto(f"/signup/confirm/{token}/")
    expect(elsewhere.locator("h1")).to_have_text("이메일 주소를 확인해 주세요")
    elsewhere.locator("[name=userPw]").fill("not the passw0rd")
    elsewhere.locator("main [type=submit]").click()
    expect(elsewhere.locator(".field-error")).to_contain_text("이 가입에서 정한 비밀번호가 아닙니다.")
    assert not here.has_user(person)
    elsewhere.locator("[name=userPw]").fill(person.password)
    elsewhere.locator("main [type=submit]").click()
    # Both see the lights, and then log in.
    page.wait_for_url("**/login/")
    elsewhere.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN
    other.close()
    log_in(page, person)


def test_without_a_script_the_page_loads_itself_slowly_and_the_link_leads_to_the_lights(
    browser: Browser, here: Installation, person: Person
):
    context = browser.new_context(base_url=here.stack.base_url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/signup/")
    for name, value in (person.form | {"userPw2": person.password}).items():
        page.locator(f"[name={name}]").fill(value)
    page.locator("#signup-form [type=submit]").click()
    expect(page.locator("#lights-title")).to_have_text("Check your email")
    assert 'http-equiv="refresh" content="10"' in page.content()
    page.goto(f"/signup/confirm/{here.token_of(person)}/")
    page.locator("[name=userPw]").fill("not the passw0rd")
    page.locator("main [type=submit]").click()
    expect(page.locator(".field-error")).to_contain_text("This is not the password that was chosen for this sign-up.")
    page.locator("[name=userPw]").fill(person.password)
    page.locator("main [type=submit]").click()
    page.wait_for_url("**/signup/status/**")
    assert set(lights(page).values()) <= {"PENDING", "SUCCESS"}
    page.wait_for_url("**/login/")
    context.close()


def test_a_reloaded_page_still_waits_for_the_confirmation(page: Page, here: Installation, person: Person):
    sign_up_in(page, person)
    expect(page.locator("#lights-panel")).to_have_attribute("data-outcome", "awaiting")
    page.reload()
    expect(page.locator("#lights-title")).to_have_text("Check your email")
    here.confirm_last(person)
    page.wait_for_url("**/login/")


# --- The link ---------------------------------------------------------------------------------------------------


def test_nothing_is_stored_or_published_before_the_confirmation_and_everything_afterwards(
    here: Installation, person: Person
):
    answer = here.post(person)
    assert answer.status == 202
    assert answer.json | {"signupId": ""} == {
        "signupId": "",
        "version": 1,
        "complete": False,
        "services": {name: {"status": "PENDING"} for name in ORANGE},
        "awaiting": "confirmation",
    }
    token = here.token_of(person)
    assert not here.has_user(person)
    assert here.events_about(person) == []
    confirmed = here.confirm(token, person.password)
    assert confirmed.status == 200
    assert confirmed.json["services"]["auth"] == {"status": "SUCCESS"}
    assert here.settled(answer) == GREEN
    assert here.has_user(person)
    assert here.stack.query("auth", f"SELECT 1 FROM authsvc_unconfirmedsignup WHERE email = '{person.email}'") == []


def test_a_stream_reports_the_pending_confirmation_and_then_the_lights(here: Installation, person: Person):
    with opened(here.stack, "POST", "/user", person.form, Accept="text/event-stream") as response:
        stream = events(response)
        first = next(stream)
        assert (first.id, first.data["awaiting"]) == (1, "confirmation")
        here.confirm_last(person)
        rest = list(stream)
    assert [event.kind for event in rest] == ["status"] * len(rest)
    assert all("awaiting" not in event.data for event in rest)
    assert rest[-1].statuses == GREEN


def test_the_link_works_once(here: Installation, person: Person):
    here.post(person)
    token = here.token_of(person)
    assert here.confirm(token, person.password).status == 200
    again = here.confirm(token, person.password)
    assert (again.status, again.json["type"]) == (409, "/problems/link-used")
    page = here.page(token)
    assert (page.status, b"Your address is already confirmed" in page.body) == (410, True)


def test_of_many_confirmations_at_the_same_time_one_counts(here: Installation, person: Person):
    here.post(person)
    token = here.token_of(person)
    with ThreadPoolExecutor(8) as pool:
        statuses = [answer.status for answer in pool.map(here.confirm, [token] * 8, [person.password] * 8)]
    assert sorted(statuses) == [200] + [409] * 7
    assert len(here.events_about(person)) == 1


def test_a_forged_link_is_refused_with_advice(here: Installation, person: Person):
    here.post(person)
    claims, _colon, signature = here.token_of(person).rpartition(":")
    flipped = f"{claims}:{signature[:-2]}{'AA' if signature[-2:] != 'AA' else 'BB'}"
    for token in (flipped, claims, "x", "%F0%9F", "x" * 5000):
        answer = here.page(token)
        assert answer.status == 404, token
    assert b"This link is incomplete" in here.page(flipped).body
    assert here.confirm(flipped, person.password).json["type"] == "/problems/link-unknown"
    assert not here.has_user(person)


def test_an_expired_link_is_refused_with_advice(here: Installation, person: Person):
    answer = here.post(person)
    token = here.token_of(person)
    table = "authsvc_unconfirmedsignup"
    here.stack.query("auth", f"DELETE FROM {table} WHERE email = '{person.email}'")
    assert here.confirm(token, person.password).json["type"] == "/problems/link-expired"
    page = here.page(token)
    assert (page.status, b"This link has expired" in page.body) == (410, True)
    # The same id with other content is another row: the old link does not confirm it.
    other = new_person()
    assert here.post(other, answer.json["signupId"]).status == 202
    here.mails_to(other)
    assert here.confirm(token, person.password).json["type"] == "/problems/link-expired"
    assert not here.has_user(other)


def test_a_post_from_another_site_confirms_nothing(here: Installation, person: Person):
    here.post(person)
    token = here.token_of(person)
    assert here.page(token, "POST").status == 403
    assert not here.has_user(person)


def test_the_owner_of_an_address_cannot_confirm_what_a_stranger_signed_up(here: Installation, person: Person):
    """The attack: sign up with the owner's address before the owner does, so that both mails look alike."""
    stranger = replace(person, password=new_person().password)
    here.post(stranger)
    planted = here.token_of(person)
    refused = here.confirm(planted, person.password)
    assert (refused.status, refused.json["type"]) == (422, "/problems/wrong-password")
    assert [error["pointer"] for error in refused.json["errors"]] == ["/userPw"]
    assert not here.has_user(person)
    assert here.events_about(person) == []
    # Nothing is reserved: the owner's own sign-up has the same user ID, and the owner's password.
    own = here.post(person)
    here.mails_to(person, 2)
    assert here.confirm_last(person).json["services"]["auth"] == {"status": "SUCCESS"}
    assert here.settled(own) == GREEN
    late = here.confirm(planted, stranger.password)
    assert late.json["services"]["auth"] == {"status": "FAIL", "reason": "duplicate: userId"}


def test_of_two_who_chose_the_same_user_id_the_first_to_confirm_gets_it(here: Installation, person: Person):
    late = replace(new_person(), user_id=person.user_id)
    answers = [here.post(late), here.post(person)]
    for each in (late, person):
        here.mails_to(each)
    assert here.confirm_last(person).json["services"]["auth"] == {"status": "SUCCESS"}
    refused = here.confirm_last(late)
    assert refused.json["services"]["auth"] == {"status": "FAIL", "reason": "duplicate: userId"}
    assert here.settled(answers[1]) == GREEN
    assert not here.has_user(late)


# --- Repetition -------------------------------------------------------------------------------------------------


def test_a_repeated_request_joins_and_other_content_is_refused(here: Installation, person: Person):
    key = str(uuid4())
    first, again = here.post(person, key), here.post(person, key)
    assert (first.status, again.status) == (202, 202)
    assert first.json == again.json
    assert here.post(person, key, userName="Other").status == 409
    assert here.post(person, key, userPw="quite another w0rd").status == 409
    here.mails_to(person, 2)
    assert here.confirm_last(person).status == 200
    # It is confirmed now, and stays one sign-up.
    joined = here.post(person, key)
    assert "awaiting" not in joined.json
    assert joined.json["services"]["auth"] == {"status": "SUCCESS"}
    assert here.post(person, key, userName="Other").status == 409


def test_no_more_than_three_mails_an_hour_go_to_one_mailbox(here: Installation, person: Person):
    user, _at, domain = person.email.partition("@")
    for number in range(6):
        answer = here.post(replace(new_person(), email=f"{user}+{number}@{domain}"))
        assert answer.json["awaiting"] == "confirmation"
    # Mails are sent in the order of their sign-ups: once this one has arrived, no earlier one can still follow.
    after = new_person()
    for _ in here.stack.roles:
        here.post(after)
    here.mails_to(after)
    eventually(lambda: sum(user in mail["To"] for mail in here.inbox.mails) == 3, what="three mails")


# --- Mails to an existing user, and mails caused by a stranger ---------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "subject", "pages"),
    [
        ("email", "You already have a Signup Sync account", ["/login/", "/password/"]),
        ("user_id", "Choose another user ID for Signup Sync", ["/signup/"]),
    ],
)
def test_a_taken_user_id_or_address_is_reported_only_by_mail(
    here: Installation, person: Person, taken: str, subject: str, pages: list[str]
):
    here.post(person)
    here.confirm_last(person)
    newcomer = replace(new_person(), **{taken: getattr(person, taken)})
    answer = here.post(newcomer, email=newcomer.email.upper(), userId=newcomer.user_id.upper())
    assert answer.json["awaiting"] == "confirmation"
    mail = here.mails_to(newcomer, 2 if taken == "email" else 1)[-1]
    assert mail["Subject"] == subject
    assert [page for page in pages if f"{here.stack.base_url}{page}" not in text_of(mail)] == []
    assert "/confirm/" not in text_of(mail)


def test_a_stranger_can_send_the_owner_of_an_address_no_text(here: Installation, person: Person):
    """The attack: sign up with somebody else's address and a message as the name, then request a password reset."""
    here.post(person, userName=WARNING)
    here.confirm_last(person)
    for typed in (person, replace(new_person(), user_id=person.user_id)):
        here.post(replace(typed, user_name=WARNING))
    victim = new_person()
    here.post(victim, userName=WARNING, userId=f"evil.example-{victim.user_id[:12]}")
    form = dict(re.findall(r'name="(csrf\w+)" value="(\w+)"', request(here.stack, "GET", "/password/").body.decode()))
    request(here.stack, "POST", "/password/", f"email={victim.email}&{form}".encode())
    here.mails_to(person, 2)
    for mail in here.mails_to(victim):
        assert f"{mail['Subject']} {text_of(mail)}".find("evil.example") == -1
        assert victim.user_id not in text_of(mail)
    for mail in here.mails_to(person):
        assert "evil.example" not in text_of(mail)
        assert person.user_id not in text_of(mail)


def test_no_log_has_a_token(here: Installation, person: Person):
    here.post(person)
    token = here.token_of(person)
    here.page(token)
    request(here.stack, "GET", "/login/", Referer=f"{here.stack.base_url}/signup/confirm/{token}/")
    here.confirm(token, person.password)
    here.page(token)
    signature = token.rpartition(":")[2]
    logs = here.stack.logs()
    assert any("/signup/confirm/[ticket]" in log for log in logs.values())
    assert [name for name, log in logs.items() if signature in log] == []


def test_explain_shows_that_a_sign_up_waits_for_its_confirmation(here: Installation, person: Person):
    here.post(person)
    said = here.stack.manage("explain", person.user_id).stdout
    assert "until its address is confirmed" in said
