"""A browser with the page open: the form, its post, and the WebSocket with the lights."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

import aiohttp

from tests.chaos.story import LOST, Story, pause_after
from tests.contract.documents import check_frame


class PageClient:
    """Acts like the page's script: posts the form until it is accepted, then follows the socket."""

    def __init__(self, story: Story, http: aiohttp.ClientSession, random: Random) -> None:
        self._story = story
        # It shares the timeouts of the other clients, but not their cookies.
        self._base_url = str(http._base_url)
        self._timeout = http.timeout
        self._random = random
        self._fields: dict[str, str] = {}
        self._socket_path = ""

    async def sign_up(self) -> None:
        """Return when the page has shown the final state, however often it loses its connection."""
        cookies = aiohttp.CookieJar(unsafe=True)
        failures = 0
        async with aiohttp.ClientSession(self._base_url, cookie_jar=cookies, timeout=self._timeout) as self._http:
            while not self._story.is_complete:
                seen = self._story.version
                try:
                    await self._go_on()
                except LOST as error:
                    self._story.note(f"lost: {error!r}")
                failures = 0 if self._story.version > seen else failures + 1
                if not self._story.is_complete:
                    await asyncio.sleep(pause_after(failures, self._random))

    async def _go_on(self) -> None:
        if not self._fields:
            await self._open_form()
        elif not self._story.is_accepted:
            await self._post()
        else:
            await self._follow()

    async def _open_form(self) -> None:
        async with self._http.get("/signup/") as page:
            self._story.note(f"GET the form: {page.status}")
            if page.status == 200:
                text = await page.text()
                self._fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', text))
                [signup_id] = set(re.findall(r'"signupId": "([^"]+)"', text))
                self._story.person = replace(self._story.person, signup_id=UUID(signup_id))

    async def _post(self) -> None:
        story = self._story
        story.posts += 1
        person = story.person
        fields = {"userId": person.user_id, "userName": person.user_name, "email": person.email}
        fields |= self._fields | {"userPw": person.password, "userPw2": person.password}
        async with self._http.post("/signup/", data=fields, headers={"Accept": "application/json"}) as answer:
            story.note(f"POST the form: {answer.status}")
            if answer.status not in (200, 502, 503):
                story.note_unexpected(f"the form was answered {answer.status} {(await answer.text())[:300]}")
            if answer.content_type != "application/json":
                return  # the gateway's own words
            page: Mapping[str, Any] = await answer.json()
            if page["signupId"] != str(person.signup_id):
                story.note_unexpected(f"the front made another sign-up of it: {page['signupId']}")
            # A fresh ticket for the same sign-up.
            self._fields["ticket"], self._socket_path = page["ticket"], page["socketPath"]
            if answer.status == 200:
                story.is_accepted = True
                self._see(page["state"])

    async def _follow(self) -> None:
        self._story.resumes += 1
        shown = 0
        async with self._http.ws_connect(self._socket_path, headers={"Origin": self._base_url}) as socket:
            self._story.note("the socket is open")
            async for message in socket:
                state = json.loads(message.data)
                check_frame(state)
                if "version" not in state:
                    self._story.note(message.data)
                    continue
                if state["version"] <= shown:
                    self._story.note_unexpected(f"a socket showed {state['version']} after {shown}")
                shown = state["version"]
                self._see(state)
                if state["complete"]:
                    return
            self._story.note(f"the socket was closed: {socket.close_code}")
            if socket.close_code in (4401, 4403):
                self._story.note_unexpected(f"the socket refused the page: {socket.close_code}")

    def _see(self, state: dict[str, Any]) -> None:
        """The page may already have shown the first state of a new socket."""
        if state["version"] > self._story.version:
            self._story.see(state)
