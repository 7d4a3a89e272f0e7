"""What the middleware adds to a page, and refuses."""

import pytest
from django.test import AsyncClient

from signup_sync.middleware import page_middleware


async def test_a_page_has_the_policies_and_djangos_headers():
    answer = await AsyncClient().get("/signup/")
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"] == page_middleware.POLICY
    assert answer.headers["Permissions-Policy"] == page_middleware.PERMISSIONS
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Content-Language"] == "en"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
async def test_a_form_without_its_token_is_refused(kind):
    client = AsyncClient(enforce_csrf_checks=True)
    assert (await client.post("/signup/", b"--b--", content_type=kind)).status_code == 403
