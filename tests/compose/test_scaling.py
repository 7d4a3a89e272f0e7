"""Several instances of auth: each takes its share of the sign-ups, a new one serves at once, and any may crash.
Sign-ups also continue while topics get more partitions."""

import asyncio
import re
from asyncio import to_thread
from datetime import datetime

import pytest

from tests.client import SERVICES
from tests.compose.clients import SigningUp, keep_signing_up, sign_up_all
from tests.compose.installation import Installation
from tests.compose.test_restarts import check_all_are_stored
from tests.conftest import new_person
from tests.operations_guide import commands_after
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.needs("docker")

SIGNUPS = 300
# Seconds until a new instance serves, counted from its first successful health check.
SERVES_WITHIN = 5.0
TAKEN = r'signup_verdicts_total{kind="signUp",service="auth",status="SUCCESS"} '

# What the log of a consumer says once it reads eight partitions.
EIGHT = "user.newUser.req[0, 1, 2, 3, 4, 5, 6, 7]"

# Prints the time of the instance's first sign-up, which it waits for.
FIRST_SIGN_UP = f"""
import time
from urllib.request import urlopen
page = ""
while {TAKEN!r} not in page:
    try:
        page = urlopen("http://127.0.0.1:8000/metrics", timeout=5).read().decode()
    except OSError:
        time.sleep(0.05)
print(time.time())
"""
METRICS = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8000/metrics').read().decode())"


async def test_a_third_instance_serves_at_once_and_each_takes_a_third(installation: Installation) -> None:
    async with keep_signing_up(installation.address, at_once=2):
        up = ("up", "--detach", "--no-build", "--no-recreate", "--no-deps", "--scale", "auth=3", "auth")
        await to_thread(installation.compose, *up)
        first_sign_up = float(await to_thread(installation.python, "auth", FIRST_SIGN_UP, index=3))
        await to_thread(installation.wait_until_healthy)
        healthy = await to_thread(first_healthy, installation, "auth", 3)
    assert first_sign_up - healthy < SERVES_WITHIN

    before = await to_thread(taken, installation)
    people = [new_person() for _ in range(SIGNUPS)]
    await sign_up_all(installation.address, people, at_once=12)
    after = await to_thread(taken, installation)

    shares = [now - then for now, then in zip(after, before, strict=True)]
    assert sum(shares) == SIGNUPS
    assert all(abs(share - SIGNUPS / 3) <= 0.1 * SIGNUPS / 3 for share in shares), shares


async def test_every_client_that_retries_succeeds_when_an_instance_is_killed(installation: Installation) -> None:
    people = [new_person() for _ in range(100)]
    is_busy = asyncio.Event()
    done: list[SigningUp] = []

    def note(signing_up: SigningUp) -> None:
        done.append(signing_up)
        if len(done) == 20:
            is_busy.set()

    clients = asyncio.create_task(sign_up_all(installation.address, people, at_once=20, after_each=note))
    await asyncio.wait_for(is_busy.wait(), PATIENCE)
    await to_thread(installation.kill, "auth", index=1)
    await clients

    assert max(each.posts for each in done) > 1, "the crash was noticed by nobody"
    assert [each.lights for each in done] == [dict.fromkeys(SERVICES, "SUCCESS")] * len(people)
    stored = await to_thread(installation.stored, [each.user_id for each in people])
    assert stored == dict.fromkeys(SERVICES, len(people))
    await to_thread(installation.wait_until_healthy)
    assert await to_thread(installation.restarts, "auth") == 1, "no other instance crashed"


async def test_sign_ups_continue_while_a_topic_gets_more_partitions(installation: Installation) -> None:
    async with keep_signing_up(installation.address, at_once=2) as done:
        await to_thread(eventually, lambda: done, what="somebody has signed up")
        with (installation.directory / ".env").open("a") as settings:
            settings.write("KAFKA_PARTITIONS=8\n")
        [add] = commands_after("This adds partitions to the existing topics:")
        assert "of them had fewer than 8 partitions: added" in await to_thread(installation.run, "sh", "-c", add)
        for service in ("chat", "customer"):
            await to_thread(
                eventually, lambda service=service: EIGHT in installation.compose("logs", service), pause=0.5
            )
    later = await sign_up_all(installation.address, [new_person() for _ in range(20)], at_once=5)

    await to_thread(check_all_are_stored, installation, [*done, *later])


def taken(installation: Installation) -> list[int]:
    """Return how many sign-ups each instance of auth has accepted."""
    instances = range(1, len(installation.containers("auth")) + 1)
    pages = [installation.python("auth", METRICS, index=index) for index in instances]
    return [sum(int(float(count)) for count in re.findall(rf"^{re.escape(TAKEN)}(\S+)$", page, re.M)) for page in pages]


def first_healthy(installation: Installation, service: str, index: int) -> float:
    """Return the time of the container's first successful health check. Docker keeps the last five checks."""
    [name] = [each["Name"] for each in installation.containers(service) if each["Name"].endswith(f"-{index}")]
    log = installation.docker(
        "inspect",
        "--format",
        '{{range .State.Health.Log}}{{.ExitCode}} {{.End.UTC.Format "2006-01-02T15:04:05.000000"}}\n{{end}}',
        name,
    )
    times = [line.split()[1] for line in log.splitlines() if line.startswith("0 ")]
    return datetime.fromisoformat(f"{times[0]}+00:00").timestamp()
