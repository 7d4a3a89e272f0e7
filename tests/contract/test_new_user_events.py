"""Each side reads the events that the other publishes, although each has its own structs."""

from uuid import uuid4

import pytest

from authsvc.lights import Status
from authsvc.models import User
from authsvc.signups.events import decode_answer, new_user_requested
from eventbus.messages import Incoming, Outgoing
from participant.events import answer, decode_request
from participant.verdict import Judgement, VerdictCode


def delivered(outgoing: Outgoing) -> Incoming:
    key = outgoing.key.encode()
    return Incoming(
        topic=outgoing.topic, partition=0, offset=0, key=key, value=outgoing.value, headers=outgoing.headers
    )


def user() -> User:
    return User(user_id="Kim", email="kim@example.org", user_name="김", role="ROLE_ADMIN", owner_signup_id=uuid4())


@pytest.mark.parametrize("services", [None, ["chat"]])
def test_participants_read_the_requests_of_auth(services):
    record, signup_id = user(), uuid4()
    outgoing = new_user_requested(record, signup_id=signup_id, attempt=2, services=services)
    request = decode_request(delivered(outgoing))
    assert (request.signup_id, request.owner_signup_id) == (signup_id, record.owner_signup_id)
    assert (request.user_id, request.email, request.user_name) == ("Kim", "kim@example.org", "김")
    assert (request.role, request.services) == ("ROLE_ADMIN", services)


@pytest.mark.parametrize("verdict", list(VerdictCode), ids=lambda verdict: verdict.name)
def test_auth_reads_the_answers_of_participants(verdict):
    signup_id = uuid4()
    asked = delivered(new_user_requested(user(), signup_id=signup_id, attempt=1))
    outgoing = answer(asked, decode_request(asked), Judgement(verdict), service="chat")
    read = decode_answer(delivered(outgoing))
    assert outgoing.key.encode() == asked.key
    assert (read.transaction_id, read.verdict.service) == (signup_id, "chat")
    assert (read.verdict.status, read.verdict.reason) == (Status(verdict.status), verdict.reason)
