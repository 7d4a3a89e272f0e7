"""Owners who, once they have signed up, change their account or close it, on the account page in a browser."""

import asyncio
import html
import re
from random import Random

import aiohttp

from tests.chaos.people import Kind
from tests.chaos.story import LOST, Story, pause_after


class Owner:
    """Log in and carry out the person's wish until a page confirms it, however often the connection is lost."""

    def __init__(self, story: Story, http: aiohttp.ClientSession, random: Random) -> None:
        self._story = story
        self._base_url = str(http._base_url)
        self._timeout = http.timeout
        self._random = random

    async def act(self) -> None:
        failures = 0
        async with aiohttp.ClientSession(
            self._base_url, cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=self._timeout
        ) as self._http:
            while True:
                try:
                    if await self._is_done():
                        return
                except LOST as error:
                    self._story.note(f"lost: {error!r}")
                failures += 1
                await asyncio.sleep(pause_after(failures, self._random))

    async def _is_done(self) -> bool:
        is_logged_in = await self._log_in()
        if is_logged_in is None:
            return False
        if self._story.person.kind is Kind.CLOSES:
            # An earlier attempt, whose answer was lost, has closed the account if it can't be logged in to any more.
            return not is_logged_in or await self._close()
        return is_logged_in and await self._change()

    async def _log_in(self) -> bool | None:
        """Whether the account lets its owner in; None without a clear answer."""
        person = self._story.person
        page = await self._page("/login/")
        if page is None:
            return None
        fields = {"username": person.user_id, "password": person.password, **_hidden(page)}
        async with self._http.post("/login/", data=fields, headers={"Referer": f"{self._base_url}/login/"}) as answer:
            self._story.note(f"POST the login: {answer.status} {answer.url.path}")
            if answer.status != 200:
                return None
            return answer.url.path == "/account/"

    async def _change(self) -> bool:
        person = self._story.person
        page = await self._page("/account/")
        if page is None:
            return False
        if _escaped(person.new_name) in page and person.new_email in page:
            return True
        fields = {"user_name": person.new_name, "email": person.new_email, "password": person.password}
        await self._post("/account/", fields | _hidden(page))
        return False

    async def _close(self) -> bool:
        page = await self._page("/account/close/")
        if page is not None:
            await self._post("/account/close/", {"password": self._story.person.password, **_hidden(page)})
        return False

    async def _page(self, path: str) -> str | None:
        async with self._http.get(path) as answer:
            self._story.note(f"GET {path}: {answer.status}")
            return await answer.text() if answer.status == 200 else None

    async def _post(self, path: str, fields: dict[str, str]) -> None:
        headers = {"Referer": f"{self._base_url}{path}"}
        async with self._http.post(path, data=fields, headers=headers, allow_redirects=False) as answer:
            self._story.note(f"POST {path}: {answer.status} {answer.headers.get('Location', '')[:50]}")
            if answer.status not in (200, 302, 429, 500, 502, 503):
                self._story.note_unexpected(f"POST {path} was answered {answer.status}")


def _hidden(page: str) -> dict[str, str]:
    """The values of the hidden fields of the page's own form; the CSRF token is in each."""
    fields = {}
    for tag in re.findall(r'<input type="hidden"[^>]*>', page):
        name, value = (re.search(rf'{what}="([^"]*)"', tag) for what in ("name", "value"))
        if name and value and name[1] in ("csrfmiddlewaretoken", "opened"):
            fields[name[1]] = html.unescape(value[1])
    return fields


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;")
