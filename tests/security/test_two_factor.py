"""Two-factor authentication, without a browser: the access of a session before and after its code."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import URLResolver, get_resolver
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from authsvc.accounts.api_sessions import may_add_admin
from authsvc.accounts.two_factor import devices, login
from authsvc.mail import mail_worker
from authsvc.models import User
from tests.integration.test_admin_korean import Texts, our_english
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "chat", "customer"])

PASSWORD = "correct horse 9"
PAGES = "/account/two-factor/"
OWN_PAGES = ("/account/", "/account/password/", PAGES, f"{PAGES}setup/", f"{PAGES}codes/", f"{PAGES}off/")


@pytest.fixture
def user() -> User:
    return User.objects.create_superuser("mina.k", "mina@example.org", PASSWORD)


@pytest.fixture
def codes(user: User) -> list[str]:
    """Turn on the user's second factor, and return the recovery codes."""
    devices.begin_setup(user)
    codes = devices.turn_on(devices.device_in_setup(user))
    assert codes
    return codes


def code_of(user: User, *, ahead: int = 0) -> str:
    """The code that the user's app shows, `ahead` steps of 30 s from now; the app's clock may be one step off."""
    totp = TOTP(TOTPDevice.objects.get(user=user).bin_key)
    totp.time = time.time() + 30 * ahead
    return f"{totp.token():06d}"


def wrong_code_of(user: User) -> str:
    near = {code_of(user, ahead=ahead) for ahead in range(-2, 4)}
    return next(code for code in (f"{number:06d}" for number in range(10)) if code not in near)


def give_password(client: Client, *, path: str = "/login/", **fields: str) -> Any:
    return client.post(path, {"username": "mina.k", "password": PASSWORD, **fields})


def give_code(client: Client, code: str, *, query: str = "", **headers: str) -> Any:
    return client.post(f"/login/code/{query}", {"code": code}, headers=headers)


def verified(user: User, code: str) -> Client:
    client = Client()
    give_password(client)
    assert give_code(client, code).status_code == 302
    return client


def is_logged_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


def let_time_pass(model: Any = TOTPDevice) -> None:
    """Let the wait after wrong codes pass."""
    model.objects.update(throttling_failure_timestamp=timezone.now() - timedelta(days=1))


def confirm(client: Client, page: str, code: str, *, password: str = PASSWORD) -> Any:
    return client.post(f"{PAGES}{page}/", {"password": password, "code": code})


def sent() -> list[str]:
    """The second lines of all mails, once they are sent."""
    eventually(lambda: mail_worker().waiting == 0, what="no mail waits")
    return [message.body.strip().splitlines()[2] for message in mail.outbox]


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    records = [record for record in caplog.records if record.name == "security"]
    return [(each.msg, getattr(each, "detail", "")) for each in records if each.msg.startswith(("two", "rec"))]


def admin_urls() -> list[str]:
    """Every URL below /admin/, with an arbitrary value for each variable part."""

    def walk(patterns: list[Any], prefix: str) -> Any:
        for pattern in patterns:
            path = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, path)
            else:
                yield re.sub(r"\(\?P<\w+>[^)]*\)|<(\w+:)?\w+>", "1", path).replace("^", "").replace("$", "")

    return [f"/{path}" for path in walk(get_resolver().url_patterns, "") if path.startswith("admin/")]


# --- Turning it on and off ------------------------------------------------------------------------------------


def set_up(client: Client) -> Any:
    return client.post(PAGES)


def test_the_second_factor_is_on_only_after_a_correct_code(user: User, caplog: pytest.LogCaptureFixture):
    client = Client()
    client.force_login(user)
    assert client.get(f"{PAGES}setup/")["Location"] == PAGES, "nothing is made by looking"
    assert set_up(client)["Location"] == f"{PAGES}setup/"
    page = client.get(f"{PAGES}setup/")
    secret = TOTPDevice.objects.get().bin_key
    shown = re.search(r'id="secret">([A-Z2-7 ]+)<', page.content.decode())[1]
    assert len(shown.replace(" ", "")) == 32
    assert "no-store" in page["Cache-Control"]
    assert 'src="data:image/svg+xml' in page.content.decode()
    assert secret.hex() not in page.content.decode()
    refused = confirm(client, "setup", wrong_code_of(user))
    assert "This code is wrong" in refused.content.decode()
    assert devices.second_factor_of(user) is None
    assert give_password(Client())["Location"] == "/account/", "a setup that is not finished asks for nothing"
    let_time_pass()
    assert "This password is wrong" in confirm(client, "setup", code_of(user), password="wrong").content.decode()
    assert devices.second_factor_of(user) is None
    page = confirm(client, "setup", code_of(user))
    codes = re.findall(r"<code>([a-z2-7-]+)</code>", page.content.decode())
    assert len(set(codes)) == 10
    assert "no-store" in page["Cache-Control"]
    assert is_logged_in(client), "who turned it on has proved it"
    assert events(caplog) == [
        ("two_factor_failed", "wrong code"),
        ("two_factor_failed", "wrong password"),
        ("two_factor_enabled", ""),
    ]
    # Neither the secret nor the codes are shown again.
    for path in OWN_PAGES:
        content = client.get(path).content.decode()
        assert shown not in content
        assert codes[0] not in content
    assert sent() == ["Two-factor authentication was turned on for your account."]
    # Only digests are stored, so a reader of the database can't use them.
    assert not StaticToken.objects.filter(token__in=[*codes, *(code.replace("-", "") for code in codes)]).exists()


def test_each_setup_has_a_secret_of_its_own_and_the_last_one_counts(user: User):
    client = Client()
    client.force_login(user)
    set_up(client)
    old = code_of(user)
    set_up(client)
    assert TOTPDevice.objects.count() == 1
    assert confirm(client, "setup", old).status_code == 200
    assert devices.second_factor_of(user) is None


def test_a_setup_replaced_while_its_code_is_checked_turns_nothing_on(user: User):
    devices.begin_setup(user)
    replaced = devices.device_in_setup(user)
    devices.begin_setup(user)
    assert devices.turn_on(replaced) is None
    assert devices.second_factor_of(user) is None


def test_turning_it_off_needs_the_password_and_a_code(user: User, codes: list[str], caplog: pytest.LogCaptureFixture):
    client = verified(user, code_of(user))
    assert confirm(client, "off", code_of(user, ahead=1), password="wrong").status_code == 200
    assert confirm(client, "off", code_of(user)).status_code == 200, "the code that logged in is used"
    assert devices.second_factor_of(user)
    let_time_pass()
    assert confirm(client, "off", code_of(user, ahead=1))["Location"] == PAGES
    assert not TOTPDevice.objects.exists()
    assert not StaticDevice.objects.exists()
    assert not StaticToken.objects.exists()
    assert is_logged_in(client)
    assert events(caplog)[-1] == ("two_factor_disabled", "")
    assert sent() == ["Two-factor authentication was turned off for your account."]
    fresh = Client()
    assert give_password(fresh)["Location"] == "/account/"
    assert is_logged_in(fresh)


def test_new_recovery_codes_replace_the_old_ones_and_the_page_counts_those_that_are_left(user: User, codes: list[str]):
    client = verified(user, codes[0])
    assert "<dd>9</dd>" in client.get(PAGES).content.decode()
    assert confirm(client, "codes", code_of(user), password="wrong").status_code == 200
    page = confirm(client, "codes", code_of(user)).content.decode()
    new = re.findall(r"<code>([a-z2-7-]+)</code>", page)
    assert len(set(new) - set(codes)) == 10
    assert "<dd>10</dd>" in client.get(PAGES).content.decode()
    again = Client()
    give_password(again)
    assert give_code(again, codes[1]).status_code == 200
    let_time_pass(StaticDevice)
    assert give_code(again, new[1]).status_code == 302
    used, renewed = "One of your account's recovery codes was used", "New recovery codes were created"
    assert [words.startswith(each) for words, each in zip(sent(), (used, renewed, used), strict=True)] == [True] * 3


# --- The login ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "destination"), [("/login/", "/account/"), ("/admin/login/", "/admin/")])
def test_after_the_password_nobody_is_logged_in_until_the_code_is_right(
    user: User, codes: list[str], path: str, destination: str
):
    client = Client()
    step = give_password(client, path=path, **({"next": destination} if "admin" in path else {}))
    assert step["Location"].startswith("/login/code/")
    assert "_auth_user_id" not in client.session
    assert not is_logged_in(client)
    assert client.get("/admin/").status_code == 302
    assert "Enter your code" in client.get(step["Location"]).content.decode()
    before = client.session.session_key
    done = client.post(step["Location"], {"code": code_of(user)})
    assert done["Location"] == destination
    assert client.get(destination).status_code == 200
    assert client.session.session_key != before, "a session that somebody else has put there would be logged in too"


def test_a_code_of_the_app_works_once(user: User, codes: list[str]):
    code = code_of(user)
    verified(user, code)
    replayed = Client()
    give_password(replayed)
    assert "already used" in give_code(replayed, code).content.decode()
    assert not is_logged_in(replayed)


def test_a_recovery_code_works_once_however_it_is_typed(user: User, codes: list[str]):
    assert is_logged_in(verified(user, f" {codes[0].upper().replace('-', ' ')} "))
    client = Client()
    give_password(client)
    assert give_code(client, codes[0]).status_code == 200
    let_time_pass(StaticDevice)
    assert give_code(client, codes[1]).status_code == 302


def test_only_one_of_concurrent_requests_with_the_same_recovery_code_succeeds(user: User, codes: list[str]):
    device = devices.second_factor_of(user)
    together = Barrier(6)

    def take() -> bool:
        together.wait()
        try:
            return devices.take_code(device, codes[0]).is_right
        except devices.TooSoonError:
            return False
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        taken = [future.result() for future in [pool.submit(take) for _ in range(6)]]
    assert taken.count(True) == 1
    assert devices.recovery_codes_left(user) == 9


def test_wrong_codes_delay_the_next_attempt_but_never_for_long(
    user: User, codes: list[str], caplog: pytest.LogCaptureFixture
):
    client = Client()
    give_password(client)
    waits = []
    for _ in range(15):
        assert give_code(client, wrong_code_of(user)).status_code == 200
        refused = give_code(client, code_of(user))
        assert refused.status_code == 429
        assert "Too many wrong codes" in refused.content.decode()
        waits.append(int(refused["Retry-After"]))
        let_time_pass()
    assert waits[:4] == [1, 2, 4, 8]
    assert set(waits[9:]) == {512}
    assert events(caplog) == [("two_factor_failed", "wrong code")] * 15
    assert give_code(client, code_of(user)).status_code == 302
    assert sent() == ["Someone who knows your password entered several wrong codes for your account."]


def test_a_lost_phone_is_no_reason_to_wait_recovery_codes_have_their_own_count(user: User, codes: list[str]):
    client = Client()
    give_password(client)
    give_code(client, wrong_code_of(user))
    assert give_code(client, codes[0]).status_code == 302
    other = Client()
    give_password(other)
    give_code(other, "no-such-code")
    assert give_code(other, codes[1]).status_code == 429


@pytest.mark.parametrize(
    "code", ["", "0" * 41, "١٢٣٤٥٦", "12345\x00", "１" * 6, "a" * 2_000, "__import__", "-00001", "0x12345"]
)
def test_an_invalid_code_is_refused_with_a_message(user: User, codes: list[str], code: str):
    client = Client()
    give_password(client)
    answer = give_code(client, code)
    assert answer.status_code == 200
    assert "field-error" in answer.content.decode()
    assert not is_logged_in(client)


def test_the_code_page_requires_a_recent_correct_password(
    user: User, codes: list[str], monkeypatch: pytest.MonkeyPatch
):
    stranger = Client()
    assert stranger.get("/login/code/?next=/account/")["Location"] == "/login/?next=%2Faccount%2F"
    assert give_code(stranger, code_of(user))["Location"] == "/login/"
    late, changed, inactive = Client(), Client(), Client()
    for client in (late, changed, inactive):
        give_password(client)
    with monkeypatch.context() as patch:
        patch.setattr(login, "VALID_FOR", 0)
        assert give_code(late, code_of(user))["Location"] == "/login/"
    user.set_password("another horse 9")
    user.save()
    assert give_code(changed, code_of(user))["Location"] == "/login/"
    user.set_password(PASSWORD)
    user.save()
    give_password(inactive)
    User._base_manager.update(is_active=False)
    assert give_code(inactive, code_of(user))["Location"] == "/login/"
    assert not any(is_logged_in(client) for client in (stranger, late, changed, inactive))


def test_a_password_reset_does_not_bypass_the_second_factor(user: User, codes: list[str], settings):
    # Other tests of this run ask for links to the same mailbox.
    settings.RATE_LIMIT_CONFIRM = 0
    client = Client()
    client.post("/password/", {"email": user.email})
    eventually(lambda: mail.outbox, what="the mail with the link")
    link = re.search(r"/password/\S+/\S+/", mail.outbox[0].body)
    assert link
    form = client.get(link[0])["Location"]
    new = {"new_password1": "another horse 9", "new_password2": "another horse 9"}
    assert client.post(form, new)["Location"] == "/login/"
    assert not is_logged_in(client)
    step = give_password(client, password="another horse 9")
    assert step["Location"].startswith("/login/code/")
    assert not is_logged_in(client)
    assert give_code(client, wrong_code_of(user)).status_code == 200
    assert not is_logged_in(client)
    let_time_pass()
    assert give_code(client, code_of(user)).status_code == 302
    assert is_logged_in(client)


def test_the_code_page_redirects_only_to_our_own_pages(user: User, codes: list[str]):
    for index, elsewhere in enumerate(
        ("https://evil.example/", "//evil.example/", "javascript:alert(1)", r"\\evil.example")
    ):
        client = Client()
        step = give_password(client, next=elsewhere)
        assert "evil" not in step["Location"]
        done = give_code(client, codes[index], query=f"?next={quote(elsewhere)}")
        assert done["Location"] == "/account/"
    client = Client()
    step = give_password(client, next="/account/password/")
    assert client.post(step["Location"], {"code": codes[9]})["Location"] == "/account/password/"


def test_attempts_count_as_logins_of_their_address(user: User, codes: list[str], settings, monkeypatch):
    counted = []
    monkeypatch.setattr(
        "authsvc.rate_limits.AttemptLimits.count", lambda self, attempt, **more: counted.append(attempt)
    )
    client = Client()
    give_password(client)
    give_code(client, wrong_code_of(user))
    assert counted == ["login", "login"]


# --- A session without the code ----------------------------------------------------------------------------------


@pytest.fixture
def unverified(user: User, codes: list[str]) -> Client:
    """A session of the user from before the second factor was turned on, or forged past the login's second step."""
    client = Client()
    client.force_login(user)
    return client


def test_every_page_of_the_admin_refuses_a_session_without_the_code(unverified: Client):
    urls = admin_urls()
    assert len(urls) > 50
    assert "/admin/authsvc/trafficminute/stream/" in urls
    for url in urls:
        for answer in (unverified.get(url), unverified.post(url)):
            if url == "/admin/login/":
                assert answer.status_code == 200
                continue
            assert answer.status_code in (302, 403, 405), url
            to = "/admin/" if url == "/admin/logout/" else f"/admin/login/?next={url}"
            assert answer.get("Location", to) == to


@pytest.mark.parametrize("path", OWN_PAGES)
def test_every_page_of_the_account_refuses_a_session_without_the_code(unverified: Client, path: str):
    for answer in (unverified.get(path), unverified.post(path, {"password": PASSWORD})):
        assert answer["Location"] == f"/login/?next={path}"


def test_a_session_without_the_code_works_again_after_a_login_with_a_code(unverified: Client, user: User):
    give_password(unverified)
    assert give_code(unverified, code_of(user)).status_code == 302
    assert unverified.get("/admin/").status_code == 200
    assert unverified.get("/account/password/").status_code == 200


def test_another_persons_device_is_not_accepted(unverified: Client, user: User):
    other = User.objects.create_user("other", "other@example.org", PASSWORD)
    devices.begin_setup(other)
    devices.turn_on(devices.device_in_setup(other))
    session = unverified.session
    session["otp_device_id"] = devices.second_factor_of(other).persistent_id
    session.save()
    assert unverified.get("/admin/").status_code == 302


def test_a_session_must_have_proved_the_current_second_factor(user: User, codes: list[str]):
    client = verified(user, code_of(user))
    devices.turn_off(user)
    devices.begin_setup(user)
    devices.turn_on(devices.device_in_setup(user))
    assert client.get("/admin/").status_code == 302


def scope_of(client: Client) -> Any:
    token = client.get("/login/").cookies["csrftoken"].value
    session = client.cookies.get("sessionid")
    cookie = f"csrftoken={token}; sessionid={session.value if session else ''}"
    headers = [(b"host", b"testserver"), (b"cookie", cookie.encode()), (b"x-csrftoken", token.encode())]
    return {"type": "http", "method": "POST", "path": "/user", "query_string": b"", "headers": headers}


def test_the_api_adds_administrators_only_from_sessions_with_the_code(unverified: Client, user: User, settings):
    assert not may_add_admin(scope_of(unverified), user_id="new-admin")
    assert may_add_admin(scope_of(verified(user, code_of(user))), user_id="new-admin")
    devices.turn_off(user)
    assert may_add_admin(scope_of(unverified), user_id="new-admin")
    settings.ADMIN_TWO_FACTOR = "required"
    assert not may_add_admin(scope_of(unverified), user_id="new-admin")


# --- Where it is required -------------------------------------------------------------------------------------


def test_if_required_staff_are_led_to_the_setup_and_then_to_the_requested_page(user: User, settings):
    settings.ADMIN_TWO_FACTOR = "required"
    client = Client()
    client.force_login(user)
    for url in admin_urls():
        if url not in ("/admin/login/", "/admin/logout/"):
            assert client.get(url).status_code in (302, 403), url
    page = client.get("/admin/authsvc/user/", follow=True)
    assert page.redirect_chain[-1][0] == f"{PAGES}?next=%2Fadmin%2Fauthsvc%2Fuser%2F"
    assert "Staff need two-factor authentication" in page.content.decode()
    setup = client.post(page.redirect_chain[-1][0])["Location"]
    done = client.post(setup, {"password": PASSWORD, "code": code_of(user)}).content.decode()
    assert 'href="/admin/authsvc/user/"' in done
    assert client.get("/admin/authsvc/user/").status_code == 200


def test_if_required_only_staff_need_a_second_factor(settings):
    settings.ADMIN_TWO_FACTOR = "required"
    client = Client()
    client.force_login(User.objects.create_user("somebody", "somebody@example.org", PASSWORD))
    assert "Staff need two-factor authentication" not in client.get(PAGES).content.decode()
    assert is_logged_in(client)
    assert client.get("/admin/login/?next=/admin/").status_code == 200


def test_the_setup_redirects_to_no_other_site(user: User):
    client = Client()
    client.force_login(user)
    setup = client.post(f"{PAGES}?next=https://evil.example/")["Location"]
    assert setup == f"{PAGES}setup/"
    done = client.post(f"{setup}?next=//evil.example/", {"password": PASSWORD, "code": code_of(user)})
    assert "evil" not in done.content.decode()


# --- Those who lost it ----------------------------------------------------------------------------------------


def reset_in_admin(client: Client, *users: User) -> Any:
    fields = {"action": "reset_two_factor", "_selected_action": [user.pk for user in users]}
    return client.post("/admin/authsvc/user/", fields, follow=True)


def test_superusers_turn_off_another_users_second_factor_but_not_their_own(
    user: User, codes: list[str], caplog: pytest.LogCaptureFixture
):
    boss = User.objects.create_superuser("boss", "boss@example.org", PASSWORD)
    client = Client()
    client.force_login(boss)
    assert "recovery codes left: 10" in client.get(f"/admin/authsvc/user/{user.pk}/change/").content.decode()
    assert "turned off for 1 user." in reset_in_admin(client, user, boss).content.decode()
    assert devices.second_factor_of(user) is None
    assert give_password(Client())["Location"] == "/account/"
    record = next(each for each in caplog.records if each.msg == "two_factor_reset")
    assert (record.actor, record.subject, record.address) == ("boss", "mina.k", "127.0.0.1")
    assert LogEntry.objects.filter(object_id=user.pk, user=boss).count() == 1
    assert sent() == ["An administrator turned off two-factor authentication for your account."]
    devices.begin_setup(boss)
    devices.turn_on(devices.device_in_setup(boss))
    session = client.session
    session["otp_device_id"] = devices.second_factor_of(boss).persistent_id
    session.save()
    said = reset_in_admin(client, boss, user).content.decode()
    assert "turned off for 0 users. 1 user had not turned it on." in said
    assert "Turn off your own two-factor authentication on your account page." in said
    assert devices.second_factor_of(boss)


def test_other_staff_may_not_turn_it_off(user: User, codes: list[str]):
    staff = User.objects.create_user("staff", "staff@example.org", PASSWORD, is_staff=True)
    staff.user_permissions.add(*Permission.objects.filter(codename__in=["view_user", "change_user", "delete_user"]))
    client = Client()
    client.force_login(staff)
    assert "reset_two_factor" not in client.get("/admin/authsvc/user/").content.decode()
    assert reset_in_admin(client, user).status_code == 403
    assert devices.second_factor_of(user)


def test_a_command_turns_it_off(user: User, codes: list[str], caplog: pytest.LogCaptureFixture):
    call_command("reset_two_factor", "Mina.K")
    assert devices.second_factor_of(user) is None
    assert events(caplog) == [("two_factor_reset", "")]
    assert len(sent()) == 1
    for nobody, words in (("mina.k", "has no two-factor"), ("nobody", "There is no user")):
        with pytest.raises(CommandError, match=words):
            call_command("reset_two_factor", nobody)


def test_mails_contain_no_text_typed_at_the_sign_up(user: User, codes: list[str]):
    User._base_manager.update(user_name="WARNING https://evil.example/")
    user.refresh_from_db()
    client = verified(user, codes[0])
    confirm(client, "codes", code_of(user))
    confirm(client, "off", code_of(user, ahead=1))
    assert len(sent()) == 3
    for message in mail.outbox:
        assert message.to == ["mina@example.org"]
        assert not re.search("evil|mina", message.subject + message.body)
        assert "http://127.0.0.1:8000/password/" in message.body


# --- Costs, and displayed data --------------------------------------------------------------------------------


def test_the_form_makes_no_database_query(user: User, codes: list[str], django_assert_num_queries, unverified: Client):
    for client in (Client(), unverified):
        with django_assert_num_queries(0):
            assert client.get("/signup/").status_code == 200


def test_nobody_sees_the_secrets_of_others_in_the_administration(user: User, codes: list[str]):
    assert not {TOTPDevice, StaticDevice, StaticToken} & {*site._registry}
    assert not [url for url in admin_urls() if "otp" in url]


def test_every_page_is_korean_for_a_korean_browser(user: User):
    client = Client(headers={"accept-language": "ko"})
    client.force_login(user)
    pages = [client.get(PAGES), client.get("/account/"), client.get("/admin/")]
    set_up(client)
    pages += [client.get(f"{PAGES}setup/"), confirm(client, "setup", wrong_code_of(user))]
    pages += [confirm(client, "setup", code_of(user))]
    let_time_pass()
    pages += [confirm(client, "setup", code_of(user), password="wrong"), confirm(client, "setup", code_of(user))]
    pages += [client.get(path) for path in (PAGES, f"{PAGES}codes/", f"{PAGES}off/")]
    pages += [client.get(f"/admin/authsvc/user/{user.pk}/change/"), client.get("/admin/authsvc/user/")]
    other = Client(headers={"accept-language": "ko"})
    pages += [client.get(give_password(other)["Location"]), other.get("/login/code/"), give_code(other, "1")]
    texts = {text for page in pages for text in Texts(page.content.decode()).found}
    patterns = our_english()
    assert [text for text in texts if any(english.search(text) for english in patterns)] == []
    assert sent() == ["회원님 계정의 2단계 인증이 켜졌습니다."]
