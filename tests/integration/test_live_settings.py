"""Live settings between processes: the row, its copy in Redis, and the page on which they are changed."""

import json
import logging
from contextlib import closing

import pytest
import redis
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from authsvc.models import User
from livesettings import following
from livesettings.following import KEY, Follower
from livesettings.models import ROW, Overrides
from livesettings.values import live, take
from tests.servers import ValkeyServer
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True)]

PAGE = f"/admin/livesettings/overrides/{ROW}/change/"
AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def nothing_set(settings):
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(KEY)
        yield client
        client.delete(KEY)
    take({})


@pytest.fixture
def copy(nothing_set):
    return lambda: nothing_set.get(KEY)


def client_of(*permissions: str) -> Client:
    user = User.objects.create_user("staff-user", "staff@example.com", "correct horse 9", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def admin_client() -> Client:
    return client_of("change_overrides")


def save(client: Client, *, seen: int = 0, **fields: object):
    Overrides.objects.get_or_create(pk=ROW)
    return client.post(PAGE, {"seen": seen, **fields}, follow=True)


def set_row(**values: object) -> None:
    Overrides.objects.update_or_create(pk=ROW, defaults={"values": values})


# --- Between processes ----------------------------------------------------------------------------------------


def test_a_keeper_copies_the_row_and_others_follow_the_copy_without_any_database(django_assert_num_queries):
    set_row(SIGNUP_DEADLINE=12)
    assert Follower(keeper=True).look()
    take({})
    with django_assert_num_queries(0):
        Follower(keeper=False).look()
    assert live.SIGNUP_DEADLINE == 12


def test_a_redis_that_lost_the_copy_gets_it_again_and_nobody_goes_back_meanwhile(nothing_set, copy):
    set_row(SIGNUP_OPEN=False)
    keeper, follower = Follower(keeper=True), Follower(keeper=False)
    keeper.look()
    follower.look()
    nothing_set.flushdb()
    follower.look()
    assert live.SIGNUP_OPEN is False
    keeper.look()
    assert json.loads(copy()) == {"SIGNUP_OPEN": False}


def test_a_redis_that_came_back_with_an_old_copy_is_put_right(nothing_set, copy):
    nothing_set.set(KEY, json.dumps({"RELAY_RATE": 7}))
    set_row(RELAY_RATE=8)
    Follower(keeper=True).look()
    assert (json.loads(copy()), live.RELAY_RATE) == ({"RELAY_RATE": 8}, 8)


def test_a_keeper_that_read_the_row_before_a_change_does_not_undo_it(nothing_set, copy, monkeypatch):
    slow = Follower(keeper=True)
    read = slow._read_row

    def read_then_overtaken():
        row = read()
        set_row(RELAY_RATE=9)
        nothing_set.set(KEY, b'{"RELAY_RATE":9}')  # by a quicker one
        return row

    monkeypatch.setattr(slow, "_read_row", read_then_overtaken)
    slow.look()
    assert copy() == b'{"RELAY_RATE":9}'


@pytest.mark.parametrize("keeper", [True, False])
def test_while_redis_is_away_the_last_known_values_hold_and_it_is_said_once(settings, caplog, keeper):
    set_row(SIGNUP_DEADLINE=13)
    Follower(keeper=True).look()
    settings.REDIS_URL = AWAY
    follower = Follower(keeper=keeper)
    assert follower.look() is False
    assert follower.look() is False
    assert live.SIGNUP_DEADLINE == 13
    said = [record for record in caplog.records if record.name == following.__name__]
    assert [record.levelname for record in said if "Redis is away" in record.message] == ["WARNING"]


def test_a_role_of_auths_learns_a_change_also_while_redis_is_away(settings):
    settings.REDIS_URL = AWAY
    set_row(SIGNUP_DEADLINE=14)
    Follower(keeper=True).look()
    assert live.SIGNUP_DEADLINE == 14


@pytest.mark.parametrize("document", [b'{"SIGNUP_DEADLINE": -1}', b'{"SIGNUP_OPEN": "maybe"}', b"[]", b"\xff"])
def test_a_copy_that_cannot_be_true_changes_nothing(nothing_set, document, caplog):
    nothing_set.set(KEY, b'{"SIGNUP_DEADLINE": 15}')
    follower = Follower(keeper=False)
    follower.look()
    nothing_set.set(KEY, document)
    follower.look()
    assert live.SIGNUP_DEADLINE == 15
    assert "the live settings stay as they are" in caplog.text


def test_one_that_follows_comes_through_the_end_of_redis(settings, caplog):
    caplog.set_level(logging.INFO)
    with ValkeyServer() as valkey:
        settings.REDIS_URL = valkey.env["REDIS_URL"]
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            client.set(KEY, b'{"RELAY_RATE": 21}')
        with closing(Follower(keeper=False)) as follower:
            follower.start()
            eventually(lambda: live.RELAY_RATE == 21)
            valkey.process.kill()
            eventually(lambda: "Redis is away" in caplog.text)
            assert live.RELAY_RATE == 21
            valkey.start()
            with redis.Redis.from_url(settings.REDIS_URL) as client:
                client.set(KEY, b'{"RELAY_RATE": 22}')
            eventually(lambda: live.RELAY_RATE == 22)


# --- The page -------------------------------------------------------------------------------------------------


def test_what_is_saved_holds_at_once_is_in_redis_and_who_did_what_is_shown(admin_client, copy):
    page = save(admin_client, SIGNUP_DEADLINE="45", SIGNUP_OPEN="no").content.decode()
    assert "Saved. Every process uses it within a second." in page
    assert (live.SIGNUP_DEADLINE, live.SIGNUP_OPEN) == (45, False)
    assert json.loads(copy()) == {"SIGNUP_DEADLINE": 45, "SIGNUP_OPEN": False}
    [entry] = LogEntry.objects.all()
    assert entry.user.user_id == "staff-user"
    assert entry.get_change_message() == "Sign-up is open: yes → no; Deadline, in seconds: 30 → 45"
    shown = admin_client.get(PAGE).content.decode()
    assert "Sign-up is open: yes → no" in shown
    assert "staff-user" in shown


def test_what_was_changed_is_told_in_the_readers_language(admin_client):
    save(admin_client, SIGNUP_OPEN="no", SIGNUP_DEADLINE="45")
    save(admin_client, seen=1, SIGNUP_OPEN="no", SIGNUP_DEADLINE="45")
    page = admin_client.get(PAGE, headers={"accept-language": "ko"}).content.decode()
    assert "가입 열림: 예 → 아니요; 기한(초): 30 → 45" in page
    assert "바꾼 것 없이 저장했습니다." in page


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
def test_a_setting_out_of_its_range_is_refused_with_a_clear_answer(admin_client, copy, field, value, said):
    page = save(admin_client, **{field: value}).content.decode()
    assert said in page
    assert (Overrides.read(), copy(), LogEntry.objects.count()) == ({}, None, 0)


def test_who_saves_what_somebody_has_changed_meanwhile_is_told(admin_client):
    save(admin_client, SIGNUP_DEADLINE="45")
    page = save(admin_client, seen=0, SIGNUP_DEADLINE="50").content.decode()
    assert "Somebody has changed these settings" in page
    assert Overrides.read() == {"SIGNUP_DEADLINE": 45}


def test_with_redis_away_it_is_saved_and_said(admin_client, settings):
    settings.REDIS_URL = AWAY
    page = save(admin_client, SIGNUP_DEADLINE="46").content.decode()
    assert "Redis is away" in page
    assert live.SIGNUP_DEADLINE == 46


def test_who_may_view_alone_sees_the_values_and_changes_nothing():
    client = client_of("view_overrides")
    assert save(client, SIGNUP_DEADLINE="45").status_code == 403
    page = client.get("/admin/livesettings/overrides/", follow=True).content.decode()
    assert "Tries until stalled" in page
    assert 'name="SIGNUP_DEADLINE"' not in page
    assert Overrides.read() == {}


def test_without_a_permission_there_is_no_page():
    client = client_of()
    assert client.get("/admin/livesettings/overrides/").status_code == 403
    assert save(client, SIGNUP_DEADLINE="45").status_code == 403
    assert Overrides.read() == {}


def test_nobody_adds_or_deletes(admin_client):
    Overrides.objects.get_or_create(pk=ROW)
    assert admin_client.get("/admin/livesettings/overrides/add/").status_code == 403
    assert admin_client.post(PAGE.replace("change", "delete"), {"post": "yes"}).status_code == 403


def test_the_page_takes_few_queries(admin_client, django_assert_max_num_queries):
    save(admin_client, SIGNUP_DEADLINE="45")
    with django_assert_max_num_queries(10):
        admin_client.get(PAGE)
