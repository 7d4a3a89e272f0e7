"""An upgrade with the commands of docs/upgrading.md, while people sign up."""

import re
from asyncio import to_thread

import pytest

from tests.compose.clients import keep_signing_up, sign_up_all
from tests.compose.installation import Installation
from tests.compose.test_restarts import check_all_are_stored
from tests.conftest import new_person
from tests.contract.test_compose import OF_PROFILES, ROLES
from tests.operations_guide import UPGRADE_GUIDE, commands_after
from tests.waiting import eventually

pytestmark = pytest.mark.needs("docker")

# The roles that the commands leave running; `set-up-kafka` and `migrate` run in containers that are removed at once.
LASTING = {*ROLES} - set().union(*OF_PROFILES.values()) - {"migrate", "set-up-kafka"}
# Seconds that the guide promises to clients of the API.
[ACCEPTED_WITHIN] = map(float, re.findall(r"accepted\s+within\s+(\d+)\s+s", UPGRADE_GUIDE))


async def test_sign_ups_continue_while_every_role_is_upgraded(installation: Installation) -> None:
    """The new release differs in one file from the old one, and its image has the same name."""
    # The guide's commands are for two instances of auth, and other tests leave a third.
    as_at_first = ("up", "--detach", "--no-build", "--no-recreate", "--no-deps", "--scale", "auth=2", "auth")
    await to_thread(installation.compose, *as_at_first)
    (installation.directory / "signup_sync" / "upgraded.py").write_text('"""Only the new release has this module."""\n')
    [old] = {*(await to_thread(images_of, installation, *LASTING)).values()}
    make_secrets, pull, *commands = commands_after("## With compose", UPGRADE_GUIDE)
    [build] = re.findall(rf"^{pull} +# or: (.+)$", UPGRADE_GUIDE, re.MULTILINE)
    async with keep_signing_up(installation.address, at_once=1) as done:
        await to_thread(eventually, lambda: done, what="somebody has signed up")
        for line in (make_secrets, build, *commands):
            await to_thread(installation.run, "sh", "-c", line.replace("signup-sync-", f"{installation.name}-"))
        await to_thread(installation.wait_until_healthy)
    later = await sign_up_all(installation.address, [new_person() for _ in range(5)], at_once=5)

    assert max(each.waited for each in done) < ACCEPTED_WITHIN
    await to_thread(check_all_are_stored, installation, [*done, *later])
    upgraded = await to_thread(images_of, installation, *LASTING)
    new = upgraded[f"{installation.name}-web-1"]
    assert new != old
    assert upgraded == dict.fromkeys(upgraded, new)
    assert len(installation.containers("auth")) == 2
    installation.docker("image", "rm", "--force", old)


def images_of(installation: Installation, *services: str) -> dict[str, str]:
    """Return the image that each container of these services runs."""
    names = [each["Name"] for each in installation.containers(*services)]
    images = installation.docker("inspect", "--format", "{{.Image}}", *names).split()
    return dict(zip(names, images, strict=True))
