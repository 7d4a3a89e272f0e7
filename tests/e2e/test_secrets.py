"""No password gets out of auth: not into a topic, Redis, a log or a page."""

from dataclasses import replace

import pytest
import redis
from playwright.sync_api import Page

from tests.client import produce, request, sign_up, topic_of
from tests.conftest import new_person
from tests.e2e.test_page import fill, sign_up_in, submit
from tests.stack import Stack

pytestmark = [pytest.mark.needs("application", "chromium")]

TOPICS = (
    "user.newUser.req", "user.newUser.res", "user.newUser.req.chat.dlt", "user.newUser.req.customer.dlt",
    "user.newUser.res.auth.dlt",
)  # fmt: skip
PASSWORD = "Tr0ub4dor-and-3-horses"


def everything_in_redis(stack: Stack) -> bytes:
    client = redis.Redis.from_url(stack.env["REDIS_URL"])
    with client:
        # Hashes (the projection, traffic), strings (leases, live settings) and sorted sets (instances); some end soon.
        of_kind = {
            b"hash": client.hgetall,
            b"string": client.get,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"none": lambda _: None,
        }
        return repr([(key, of_kind[client.type(key)](key)) for key in client.keys("*")]).encode()


def test_no_password_is_found_anywhere_outside_auths_database(page: Page, stack: Stack):
    taken = new_person()
    secretive = [replace(person, password=PASSWORD) for person in (taken, new_person(), new_person())]
    pages = []
    # Taken, refused, invalid in every way, too long, broken, and joined again.
    sign_up(stack, secretive[0].form)
    sign_up(stack, secretive[1].form | {"userId": taken.user_id})
    form = secretive[2].form
    for body in (form | {"userId": ""}, form | {"more": PASSWORD}, f'{{"userPw": "{PASSWORD}"'.encode()):
        pages.append(request(stack, "POST", "/user", body, Content_Type="application/json").body.decode())
    sign_up_in(page, secretive[2], email=taken.email)
    page.locator("[data-field=email] .field-error").wait_for()
    pages.append(page.content())
    fill(page, secretive[2], email="nowhere")
    submit(page)
    page.locator("[data-field=email] .field-error").wait_for()
    pages.append(page.content())
    produce(stack, "user.newUser.req", b"garbage", key="garbage")

    messages = [message for topic in TOPICS for message in topic_of(stack, topic)]
    kafka = b"".join(message.value + repr(message.headers).encode() for message in messages)
    assert taken.user_id.encode() in kafka
    in_redis = everything_in_redis(stack)
    assert b"SUCCESS" in in_redis
    logs = "".join(stack.logs().values())
    assert logs
    for place in (kafka, in_redis, logs.encode(), "".join(pages).encode()):
        assert PASSWORD.encode() not in place
    hashes = [password for (password,) in stack.query("auth", "SELECT password FROM authsvc_signup")]
    assert hashes
    assert all(each.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$") for each in hashes)
    for place in (kafka, in_redis, logs.encode(), "".join(pages).encode()):
        assert b"argon2" not in place
