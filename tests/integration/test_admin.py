"""Auth's part of the administration, as the administrator sees it."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from authsvc.events import NEW_USER_REQUESTED
from authsvc.lights import Status, Verdict
from authsvc.models import SignUp, User
from authsvc.services import NewSignUp, ReportedVerdict, apply_verdicts, register_users
from eventbus.topics import ensure_topics

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/authsvc/signup/"


@pytest.fixture
def admin_client() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", "correct horse 9"))
    return client


@pytest.fixture
def staff_client() -> Client:
    """May see sign-ups and nothing else."""
    user = User.objects.create_user("staff-user", "staff@example.com", "correct horse 9", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_signup"))
    client = Client()
    client.force_login(user)
    return client


def sign_up(user_id: str, **verdicts: Status) -> SignUp:
    new = NewSignUp(
        signup_id=uuid4(),
        user_id=user_id,
        email=f"{user_id}@example.com",
        user_name="<script>alert(1)</script>",
        role="ROLE_USER",
        password="not a hash",
    )
    register_users([new])
    apply_verdicts(
        [
            ReportedVerdict(new.signup_id, Verdict(service, status, "duplicate: userId" if status == "FAIL" else None))
            for service, status in verdicts.items()
        ]
    )
    return SignUp.objects.get(id=new.signup_id)


@pytest.fixture
def signups() -> dict[str, SignUp]:
    return {
        "pending": sign_up("pending-user", chat=Status.SUCCESS),
        "red": sign_up("red-user", chat=Status.FAIL, customer=Status.SUCCESS),
        "green": sign_up("green-user", chat=Status.SUCCESS, customer=Status.SUCCESS),
    }


def shown(client: Client, query: str = "") -> set[str]:
    response = client.get(LIST + query)
    assert response.status_code == 200
    return {signup.user_id for signup in response.context["cl"].result_list}


def test_it_lists_signups_with_a_colour_a_sign_and_a_word_for_each_light(admin_client, signups):
    page = admin_client.get(LIST).content.decode()
    assert '<span class="light light-fail" title="duplicate: userId">✕ chat</span>' in page
    assert '<span class="light light-pending" title="PENDING">◌ customer</span>' in page
    assert '<span class="light light-success" title="SUCCESS">✓ auth</span>' in page


@pytest.mark.parametrize(
    ("query", "users"),
    [
        ("", {"pending-user", "red-user", "green-user"}),
        ("?lights=pending", {"pending-user"}),
        ("?lights=red", {"red-user"}),
        ("?lights=complete", {"red-user", "green-user"}),
        ("?lights=stalled", set()),
        ("?q=RED-us", {"red-user"}),
        ("?q=nobody", set()),
        ("?begun=10m", {"pending-user", "red-user", "green-user"}),
        ("?begun=older10m", set()),
    ],
)
def test_it_filters_and_searches(admin_client, signups, query, users):
    assert shown(admin_client, query) == users


def test_it_filters_by_age(admin_client, signups):
    SignUp.objects.filter(user_id="red-user").update(created_at=timezone.now() - timedelta(hours=2))
    assert shown(admin_client, "?begun=1h") == {"pending-user", "green-user"}
    assert shown(admin_client, "?begun=1d") == {"pending-user", "red-user", "green-user"}
    assert shown(admin_client, "?begun=older10m") == {"red-user"}


def test_it_finds_a_signup_by_its_id(admin_client, signups):
    assert shown(admin_client, f"?q={signups['green'].id}") == {"green-user"}


def test_a_signups_page_shows_verdicts_with_reason_and_time_and_escapes_what_was_typed(admin_client, signups):
    page = admin_client.get(f"{LIST}{signups['red'].id}/change/").content.decode()
    assert "duplicate: userId" in page
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;" in page
    assert "not a hash" not in page


def test_a_signup_can_be_neither_added_changed_nor_deleted(admin_client, signups):
    path = f"{LIST}{signups['red'].id}"
    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(f"{path}/change/", {"user_id": "other"}).status_code == 403
    assert admin_client.post(f"{path}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.needs("broker")
def test_the_chosen_ones_are_replayed_and_the_act_is_logged(admin_client, signups, settings):
    settings.KAFKA_PREFIX = f"admin-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    chosen = [str(signups["red"].id), str(signups["green"].id)]
    response = admin_client.post(LIST, {"action": "replay_chosen", "_selected_action": chosen}, follow=True)
    assert "2 sign-ups sent again, 0 skipped, 0 failed." in response.content.decode()
    assert set(LogEntry.objects.values_list("object_id", flat=True)) == set(chosen)
    assert SignUp.objects.get(user_id="red-user").version == signups["red"].version


@pytest.mark.needs("broker")
def test_a_replay_under_a_filter_that_it_changes_is_logged_too(admin_client, signups, settings):
    settings.KAFKA_PREFIX = f"admin-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    SignUp.objects.filter(user_id="pending-user").update(stalled_at=timezone.now())
    chosen = [str(signups["pending"].id)]
    admin_client.post(f"{LIST}?lights=stalled", {"action": "replay_chosen", "_selected_action": chosen})
    assert list(LogEntry.objects.values_list("object_id", flat=True)) == chosen


def test_without_the_permission_there_is_no_replay(staff_client, signups):
    page = staff_client.get(LIST)
    assert "replay_chosen" not in page.content.decode()
    staff_client.post(LIST, {"action": "replay_chosen", "_selected_action": [str(signups["red"].id)]})
    assert not LogEntry.objects.exists()


def test_the_list_takes_few_queries(admin_client, signups, django_assert_max_num_queries):
    with django_assert_max_num_queries(10):
        admin_client.get(LIST)


def test_a_user_is_added_with_a_user_id_that_is_free_in_any_case(admin_client):
    fields = {
        "user_id": "ROOT-User", "email": "new@example.com", "user_name": "New", "role": "ROLE_USER",
        "usable_password": "true", "password1": "correct horse 9", "password2": "correct horse 9",
    }  # fmt: skip
    page = admin_client.post("/admin/authsvc/user/add/", fields).content.decode()
    assert "This user ID is taken." in page
    response = admin_client.post("/admin/authsvc/user/add/", fields | {"user_id": "another"})
    assert response.status_code == 302
    assert User.objects.get(user_id_key="another").check_password("correct horse 9")


def test_users_are_found_by_user_id_in_any_case_and_by_email(admin_client):
    response = admin_client.get("/admin/authsvc/user/?q=root")
    assert response.status_code == 200
    assert "root-user" in response.content.decode()
    assert admin_client.get(f"/admin/authsvc/user/{User.objects.get().pk}/change/").status_code == 200
