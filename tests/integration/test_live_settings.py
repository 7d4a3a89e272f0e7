"""Live settings shared between processes: the row, and the page that changes it."""

import logging
from contextlib import closing
from threading import Thread

import pytest
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.db import InterfaceError, OperationalError, connection
from django.test import Client
from psycopg_pool import PoolTimeout

from livesettings import following
from livesettings.following import Follower
from livesettings.models import ROW, Overrides
from livesettings.values import live, take, with_overrides
from tests.users import client_with
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True)]

PAGE = f"/admin/livesettings/overrides/{ROW}/change/"


@pytest.fixture(autouse=True)
def nothing_set():
    yield
    take({})


@pytest.fixture
def admin_client() -> Client:
    return client_with("change_overrides", user_id="staff-user")


def save(client: Client, *, seen: int = 0, **fields: object):
    Overrides.objects.get_or_create(pk=ROW)
    return client.post(PAGE, {"seen": seen, **fields}, follow=True)


def set_row(**values: object) -> None:
    Overrides.objects.update_or_create(pk=ROW, defaults={"values": values})


# --- Between processes ----------------------------------------------------------------------------------------


def test_a_follower_applies_what_is_set_before_its_start_and_afterwards():
    set_row(SIGNUP_DEADLINE=12)
    with closing(Follower()) as follower:
        follower.start()
        assert live.SIGNUP_DEADLINE == 12
        set_row(SIGNUP_DEADLINE=13)
        eventually(lambda: live.SIGNUP_DEADLINE == 13)
        Overrides.objects.all().delete()
        eventually(lambda: live.SIGNUP_DEADLINE == django_settings.SIGNUP_DEADLINE)


def test_a_poll_takes_one_query(django_assert_num_queries):
    set_row(SIGNUP_DEADLINE=12)
    with django_assert_num_queries(1):
        Follower().check()
    assert live.SIGNUP_DEADLINE == 12


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed"), PoolTimeout("none free")])
def test_while_the_database_is_down_the_last_values_apply_and_the_log_has_one_line(monkeypatch, caplog, error):
    caplog.set_level(logging.INFO)
    set_row(SIGNUP_DEADLINE=13)
    follower = Follower()
    follower.check()

    def fail():
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(Overrides, "read", fail)
        follower.check()
        follower.check()
    assert live.SIGNUP_DEADLINE == 13
    assert levels_of_log(caplog) == ["WARNING"]
    set_row(SIGNUP_DEADLINE=14)
    follower.check()
    follower.check()
    assert live.SIGNUP_DEADLINE == 14
    assert levels_of_log(caplog) == ["WARNING", "INFO"]


@pytest.mark.parametrize("values", [{"SIGNUP_DEADLINE": -1}, {"SIGNUP_OPEN": "maybe"}, ["SIGNUP_OPEN"], "SIGNUP_OPEN"])
def test_a_row_with_impossible_values_changes_nothing(values, caplog):
    set_row(SIGNUP_DEADLINE=15)
    follower = Follower()
    follower.check()
    Overrides.objects.update(values=values)
    follower.check()
    follower.check()
    assert live.SIGNUP_DEADLINE == 15
    assert levels_of_log(caplog) == ["WARNING"]


def test_a_poll_that_began_before_a_change_does_not_undo_one_that_began_after_it(monkeypatch):
    quick = Thread(target=Follower().check)
    read = Overrides.read

    def read_and_be_overtaken():
        values = read()
        if not quick.ident:
            set_row(RELAY_RATE=9)
            quick.start()
            quick.join(0.3)  # it waits for this poll, or overtakes it
        else:
            connection.close()
        return values

    monkeypatch.setattr(Overrides, "read", read_and_be_overtaken)
    Follower().check()
    quick.join()
    assert live.RELAY_RATE == 9


def levels_of_log(caplog) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == following.__name__]


# --- The page -------------------------------------------------------------------------------------------------


def test_saved_values_apply_at_once_and_the_page_lists_each_change_with_its_author(admin_client):
    page = save(admin_client, SIGNUP_DEADLINE="45", SIGNUP_OPEN="no").content.decode()
    assert "Saved. The new values apply within a second." in page
    assert (live.SIGNUP_DEADLINE, live.SIGNUP_OPEN) == (45, False)
    assert Overrides.read() == {"SIGNUP_DEADLINE": 45, "SIGNUP_OPEN": False}
    [entry] = LogEntry.objects.all()
    assert entry.user.user_id == "staff-user"
    assert entry.get_change_message() == "Sign-up is open: yes → no; Deadline, in seconds: 30 → 45"
    shown = admin_client.get(PAGE).content.decode()
    assert "Sign-up is open: yes → no" in shown
    assert "staff-user" in shown


def test_changes_are_described_in_the_readers_language(admin_client):
    save(admin_client, SIGNUP_OPEN="no", SIGNUP_DEADLINE="45")
    save(admin_client, seen=1, SIGNUP_OPEN="no", SIGNUP_DEADLINE="45")
    page = admin_client.get(PAGE, headers={"accept-language": "ko"}).content.decode()
    assert "가입 열림: 예 → 아니요; 기한(초): 30 → 45" in page
    assert "저장했습니다. 변경된 내용은 없습니다." in page


def test_the_form_shows_a_number_exactly_so_that_saving_it_again_changes_nothing(admin_client):
    save(admin_client, RELAY_MAX_PAUSE="1234.567")
    shown = admin_client.get(PAGE).context["adminform"].form["RELAY_MAX_PAUSE"].value()
    page = save(admin_client, seen=1, RELAY_MAX_PAUSE=shown).content.decode()
    assert "Saved without changes." in page
    assert Overrides.read() == {"RELAY_MAX_PAUSE": 1234.567}


def test_an_emptied_field_is_the_default_again(admin_client):
    save(admin_client, SIGNUP_DEADLINE="45")
    save(admin_client, seen=1, SIGNUP_DEADLINE="")
    assert Overrides.read() == {}
    assert live.SIGNUP_DEADLINE == django_settings.SIGNUP_DEADLINE


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("SIGNUP_DEADLINE", "0.5", "greater than or equal to 1"),
        ("SIGNUP_DEADLINE", "601", "less than or equal to 600"),
        ("SIGNUP_DEADLINE", "nan", "Enter a number"),
        ("STREAM_HEARTBEAT", "soon", "Enter a number"),
        ("RELAY_MAX_ATTEMPTS", "33.5", "Enter a whole number"),
        ("RELAY_MAX_ATTEMPTS", "3", "used up after 35 seconds"),
        ("RATE_LIMIT_TOTAL", "-1", "greater than or equal to 0"),
        ("SIGNUP_OPEN", "maybe", "Select a valid choice"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_with_a_clear_answer(admin_client, field, value, said):
    page = save(admin_client, **{field: value}).content.decode()
    assert said in page
    assert (Overrides.read(), LogEntry.objects.count()) == ({}, 0)
    assert live == with_overrides({})


def test_saving_values_that_somebody_has_changed_meanwhile_is_refused_with_the_reason(admin_client):
    save(admin_client, SIGNUP_DEADLINE="45")
    page = save(admin_client, seen=0, SIGNUP_DEADLINE="50").content.decode()
    assert "Someone has changed these settings" in page
    assert Overrides.read() == {"SIGNUP_DEADLINE": 45}


def test_settings_are_saved_and_apply_while_redis_is_down(admin_client, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    page = save(admin_client, SIGNUP_DEADLINE="46").content.decode()
    assert "Saved. The new values apply within a second." in page
    assert live.SIGNUP_DEADLINE == 46


def test_staff_with_the_view_permission_see_the_values_and_change_nothing():
    client = client_with("view_overrides")
    assert save(client, SIGNUP_DEADLINE="45").status_code == 403
    page = client.get("/admin/livesettings/overrides/", follow=True).content.decode()
    assert "Attempts until stalled" in page
    assert 'name="SIGNUP_DEADLINE"' not in page
    assert Overrides.read() == {}


def test_without_a_permission_the_page_is_refused():
    client = client_with()
    assert client.get("/admin/livesettings/overrides/").status_code == 403
    assert save(client, SIGNUP_DEADLINE="45").status_code == 403
    assert Overrides.read() == {}


def test_the_row_of_live_settings_can_be_neither_added_nor_deleted(admin_client):
    Overrides.objects.get_or_create(pk=ROW)
    assert admin_client.get("/admin/livesettings/overrides/add/").status_code == 403
    assert admin_client.post(PAGE.replace("change", "delete"), {"post": "yes"}).status_code == 403


def test_the_page_takes_few_queries(admin_client, django_assert_max_num_queries):
    save(admin_client, SIGNUP_DEADLINE="45")
    with django_assert_max_num_queries(10):
        admin_client.get(PAGE)
