"""An address with an international domain is stored in ASCII, and shown in the characters that the user typed."""

import re
from io import StringIO
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from authsvc.management.commands.reconcile import Examples, as_text
from authsvc.models import SignUp, UnconfirmedSignUp, User
from authsvc.reconcile.events import Finding
from authsvc.reconcile.reconciliation import Verification
from chatsvc.models import ChatUser
from runtime.mail_addresses import shown_address
from tests.participants import ADMIN_PATHS, MODELS
from tests.signups import save_signup
from tests.users import client_of

pytestmark = pytest.mark.django_db(databases=["default", *MODELS])

KEPT, SHOWN = "kim@xn--bcher-kva.example", "kim@bücher.example"


@pytest.fixture
def kim() -> User:
    """A user of every service, with an unconfirmed sign-up as well."""
    save_signup("kim", email=KEPT, name="Kim")
    for model in MODELS.values():
        model.objects.create(user_id="kim", email=KEPT, user_name="Kim", role="ROLE_USER")
    UnconfirmedSignUp.objects.create(
        id=uuid4(), user_id="kim", user_id_key="kim", email=KEPT, user_name="Kim", role="ROLE_USER",
        password="not a hash", created_at=timezone.now(),
    )  # fmt: skip
    return User.objects.get(user_id="kim")


def administrator() -> User:
    return get_user_model().objects.create_superuser("root-user", "root@example.org", "correct horse 9")


def viewer() -> User:
    user = get_user_model().objects.create_user("viewer", "viewer@example.org", "correct horse 9", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return user


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        (KEPT, SHOWN),
        ("lee@mail.xn--caf-dma.xn--3e0b707e", "lee@mail.café.한국"),
        ("lee@xn--fa-hia.example", "lee@faß.example"),
        ("lee@example.org", "lee@example.org"),
        # Invalid: not a label of IDNA 2008, but an old row may contain it.
        ("lee@xn--a.example", "lee@xn--a.example"),
        ("lee@xn--ls8h.example", "lee@xn--ls8h.example"),
        ("lee@bücher.example", "lee@bücher.example"),
        ("xn--nothing", "xn--nothing"),
        ("", ""),
        # "аpple" with a Cyrillic а.
        ("lee@xn--pple-43d.example", "lee@xn--pple-43d.example"),
    ],
)
def test_a_domain_is_shown_in_its_own_script_unless_it_deceives(kept: str, shown: str):
    assert shown_address(kept) == shown


@pytest.mark.parametrize("service", ["auth", *MODELS])
@pytest.mark.parametrize("staff", [administrator, viewer], ids=["may change", "may view"])
def test_lists_and_pages_of_users_show_the_domain_in_unicode(kim: User, service: str, staff: type):
    client = client_of(staff())
    model = ADMIN_PATHS.get(service, "authsvc/user")
    assert_shown(client, f"/admin/{model}/?q=kim")
    assert_shown(client, f"/admin/{model}/?o=2")
    key = MODELS[service].objects.get().pk if service in MODELS else kim.pk
    assert_shown(client, f"/admin/{model}/{key}/change/")


@pytest.mark.parametrize("staff", [administrator, viewer], ids=["may change", "may view"])
def test_pages_of_sign_ups_and_of_unconfirmed_ones_show_the_domain_in_unicode(kim: User, staff: type):
    client = client_of(staff())
    assert_shown(client, "/admin/authsvc/unconfirmedsignup/")
    assert_shown(client, f"/admin/authsvc/unconfirmedsignup/{UnconfirmedSignUp.objects.get().pk}/change/")
    assert_shown(client, f"/admin/authsvc/eventtransaction/{SignUp.objects.get(user_id=kim.user_id).pk}/change/")


def assert_shown(client: Client, path: str):
    page = client.get(path).content.decode()
    assert SHOWN in page
    # A hidden field has what is stored, to notice a change in the meantime.
    assert KEPT not in re.sub(r'<input type="hidden"[^>]*>', "", page)


@pytest.mark.parametrize("model", ["authsvc/user", "chatsvc/chatuser"])
def test_saving_a_record_as_it_is_shown_changes_nothing(kim: User, model: str):
    client = client_of(administrator())
    row = kim if "auth" in model else ChatUser.objects.get()
    path = f"/admin/{model}/{row.pk}/change/"
    form = client.get(path).context["adminform"].form
    data = {name: value for name in form.fields if isinstance(value := form[name].value(), str | bool | int)}
    assert data["email"] == SHOWN
    assert client.post(path, data | {"user_name": "Kim the Second"}).status_code == 302
    row.refresh_from_db()
    assert (row.email, row.user_name) == (KEPT, "Kim the Second")
    history = re.sub(r"\s+", " ", client.get(f"/admin/{model}/{row.pk}/history/").content.decode())
    assert "Changed Name" in history
    assert "ddress" not in history.partition("Changed Name")[2][:60]


def test_the_account_page_shows_the_domain_in_unicode(kim: User):
    assert_shown(client_of(kim), "/account/")


def test_explain_shows_the_domain_in_unicode(kim: User):
    out = StringIO()
    call_command("explain", "kim", stdout=out)
    assert re.search(rf"^Email +{SHOWN}$", out.getvalue(), re.MULTILINE)


def test_reconcile_shows_the_domain_in_unicode():
    examples = Examples()
    examples.add("chat", Finding("missing", "kim", KEPT, uuid4()))
    assert SHOWN in "\n".join(as_text({"chat": Verification()}, examples))
