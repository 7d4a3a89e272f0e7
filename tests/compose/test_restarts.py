"""Servers that restart while people sign up, and a restart of everything."""

import asyncio
from asyncio import to_thread
from collections.abc import Sequence

import pytest

from tests.client import SERVICES
from tests.compose.clients import SigningUp, keep_signing_up, sign_up_all, state_of
from tests.compose.installation import Installation
from tests.conftest import new_person

pytestmark = pytest.mark.needs("docker")


@pytest.mark.parametrize("server", ["postgres", "kafka", "redis", "gateway"])
async def test_no_sign_up_is_lost_when_a_server_restarts(installation: Installation, server: str) -> None:
    async with keep_signing_up(installation.address, at_once=3) as done:
        await to_thread(installation.compose, "restart", server)
        await to_thread(installation.wait_until_healthy)
    later = await sign_up_all(installation.address, [new_person() for _ in range(5)], at_once=5)

    await to_thread(check_all_are_stored, installation, [*done, *later])


def test_everything_stops_and_starts_again_with_its_data(installation: Installation) -> None:
    before = asyncio.run(sign_up_all(installation.address, [new_person() for _ in range(5)], at_once=5))

    installation.compose("down")
    assert installation.containers() == []
    installation.start()

    check_all_are_stored(installation, before)
    for each in before:
        state = each.state | asyncio.run(state_of(installation.address, each))
        assert state == each.state, "only events have more: what has changed"
    after = asyncio.run(sign_up_all(installation.address, [new_person() for _ in range(5)], at_once=5))
    check_all_are_stored(installation, after)


def check_all_are_stored(installation: Installation, done: Sequence[SigningUp]) -> None:
    assert [each.lights for each in done] == [dict.fromkeys(SERVICES, "SUCCESS")] * len(done)
    assert installation.stored([each.person.user_id for each in done]) == dict.fromkeys(SERVICES, len(done))
