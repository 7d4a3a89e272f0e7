from uuid import uuid4

import pytest
from aiohttp import web
from pytest_django.fixtures import Settings

from signup_sync.front.gateway import Gateway, GatewayError, SubmittedUser
from tests.unit.signup_sync.front.auth_server import AuthServer

USER = SubmittedUser(user_id="mina.k", user_name="Mina Kim", email="mina@example.org", password="four unlikely w0rds")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_password_is_never_sent_to_the_target_of_a_redirect(auth: AuthServer, settings: Settings, status: int):
    elsewhere = AuthServer()
    await elsewhere.start()
    settings.GATEWAY_URL = auth.url
    gateway = Gateway()
    redirect = {"Location": f"{elsewhere.url}/user"}
    auth.problems = [web.Response(status=status, headers=redirect) for _ in range(2)]
    try:
        with pytest.raises(GatewayError) as refused:
            await gateway.post_user(uuid4(), USER)
        assert refused.value.status == status
        with pytest.raises(GatewayError):
            await gateway.confirm("token", "pass w0rd 9")
        assert (len(auth.posts), elsewhere.posts, elsewhere.confirmed) == (1, [], [])
    finally:
        await gateway.close()
        await elsewhere.close()
