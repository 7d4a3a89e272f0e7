"""The account page and the checks of the form, without a browser."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from authsvc.lights import Status, Verdict
from authsvc.models import SignUp, User
from authsvc.signups.registration import NewSignUp, register_users
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from tests.signups import save_signup

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def signup() -> SignUp:
    """A sign-up that chat has not answered yet."""
    new = NewSignUp(
        signup_id=uuid4(),
        user_id="mina.k",
        email="mina@example.org",
        user_name="Mina Kim",
        role="ROLE_USER",
        password="not a hash",
    )
    register_users([new])
    apply_verdicts([ReportedVerdict(new.signup_id, Verdict("customer", Status.FAIL, "duplicate: email"))])
    return SignUp.objects.get(id=new.signup_id)


def page_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.get("/account/").content.decode()


def test_the_account_page_shows_answered_and_pending_lights(signup: SignUp):
    page = page_of(User.objects.get())
    assert 'data-service="auth" data-status="SUCCESS"' in page
    assert 'data-service="chat" data-status="PENDING"' in page
    assert "Already had this email address" in page
    assert "Not every service has answered yet" in page


def test_the_account_page_says_if_the_sign_up_has_been_purged(signup: SignUp):
    signup.delete()
    page = page_of(User.objects.get())
    assert "There is no record of your sign-up at the services" in page
    assert "data-service" not in page


def test_the_login_page_links_a_logged_in_user_to_the_account(signup: SignUp):
    client = Client()
    notice = 'You are logged in as mina.k. <a href="/account/">'
    assert notice not in client.get("/login/").content.decode()
    client.force_login(User.objects.get())
    assert notice in client.get("/login/").content.decode()


def test_another_persons_sign_up_with_the_same_user_id_is_not_shown(signup: SignUp):
    stranger = save_signup("mina.k", email="x@example.org", name="X")
    SignUp.objects.filter(id=stranger.id).update(created_at=timezone.now() + timedelta(days=1))
    assert 'data-service="auth" data-status="SUCCESS"' in page_of(User.objects.get())


def test_nobody_else_sees_an_account(signup: SignUp):
    assert Client().get("/account/").status_code == 302
    other = User.objects.create_user("other", "other@example.org", "correct horse 9")
    assert "mina" not in page_of(other)


def test_the_form_is_checked_for_our_own_pages_only(signup: SignUp):
    fields = {"userId": "mina.k", "email": "mina@example.org", "userPw": "12345678"}
    answer = Client().post("/account/check/", fields)
    assert list(answer.json()["errors"]) == ["userPw"], "what is taken is not told"
    assert "no-store" in answer["Cache-Control"]
    assert Client().get("/account/check/").status_code == 405
    assert Client(enforce_csrf_checks=True).post("/account/check/", fields).status_code == 403
