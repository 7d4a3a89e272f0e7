"""Requests to one SCIM server (RFC 7644). Only consumers of SCIM services import this module, and thereby httpx2."""

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from httpx2 import AsyncClient, HTTPError, InvalidURL, Response
from scim2_client import SCIMClientException
from scim2_client.engines.httpx2 import AsyncSCIMClient
from scim2_models import ListResponse, PatchOp, SCIMException, ScimFilter, ScimPolicy, ScimProvider, SearchRequest

from runtime.errors import in_one_line
from runtime.text_length import shortened
from scimsvc.errors import RefusedError, ScimError, ScimUnavailableError, UnfinishedError
from scimsvc.models import LAST_ANSWER_MAX, SCIM_ID_MAX
from scimsvc.resource import ScimUser

T = TypeVar("T")

# Seconds within which a complete answer must arrive, however slowly it begins.
ANSWERS_WITHIN: Final = 10.0
# Bytes of the largest answer that is read. A user takes a few kilobytes.
ANSWER_BYTES_MAX: Final = 1024 * 1024
# Seconds: the longest Retry-After that is obeyed.
RETRY_AFTER_MAX: Final = 300.0
# A request that the server can't process, whatever the time: the data is invalid, or PATCH or DELETE is not supported.
_INVALID: Final = frozenset({400, 405, 413, 422, 501})
_NOT_NOW: Final = frozenset({429, 503})

# httpx2 logs every URL, and filters in URLs contain userIds.
logging.getLogger("httpx2").setLevel(logging.WARNING)


class ScimServer:
    """One server. Not thread-safe: one thread at a time may use it.

    Every method raises ScimUnavailableError if the server can't be used at all. Writes raise UnfinishedError if only
    they failed, and RefusedError if the server rejects the data.
    """

    def __init__(self, url: str, token: str) -> None:
        # A coroutine can be abandoned at any point, so a deadline covers even headers that trickle in byte by byte.
        # The timeouts of httpx2's synchronous client begin anew with every byte.
        self._runner = asyncio.Runner()
        http = AsyncClient(
            base_url=url,
            headers={
                "Accept": "application/scim+json, application/json;q=0.9",
                "Accept-Encoding": "identity",
                "Authorization": f"Bearer {token}",
                "User-Agent": "signup-sync",
            },
            follow_redirects=False,
            timeout=ANSWERS_WITHIN,
        )
        # Servers return attributes that RFC 7643 doesn't define.
        provider = ScimProvider([ScimUser], policy=ScimPolicy(unknown=ScimPolicy.Unknown.ignore))
        self._client = _BoundedClient(http, provider=provider)

    def close(self) -> None:
        self._runner.run(self._client.client.aclose())
        self._runner.close()

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """End every request in this context at `deadline`, a value of time.monotonic(), or at an earlier deadline of
        an outer context."""
        outer = self._client.deadline
        self._client.deadline = min(outer, deadline)
        try:
            yield
        finally:
            self._client.deadline = outer

    def find(self, owner: UUID) -> list[ScimUser]:
        """Return the users whose externalId is this owner: one, or none."""
        return self._lookup(_equals("externalId", str(owner)), lambda user: user.external_id == str(owner))

    def find_by_user_name(self, user_name: str) -> list[ScimUser]:
        """Return the users with this userName, which servers compare without regard to case."""
        return self._lookup(_equals("userName", user_name), lambda user: _same(user.user_name, user_name))

    def find_by_email(self, email: str) -> list[ScimUser]:
        """Return the users with this email address."""
        return self._lookup(
            _equals("emails.value", email), lambda user: any(_same(each.value, email) for each in user.emails or ())
        )

    def create(self, user: ScimUser) -> ScimUser:
        """Create the user and return it as the server has it. Raises ScimError with `is_unique` for a duplicate."""
        with _writing("POST"):
            created = self._run(self._client.create(user))
            return _checked(created, user)

    def modify(self, scim_id: str, patch: PatchOp[ScimUser]) -> None:
        """Change the user. Raises ScimError with `is_unique` if a value belongs to another user."""
        with _writing("PATCH"):
            changed = self._run(self._client.modify(ScimUser, scim_id, patch))
            if isinstance(changed, ScimUser) and changed.id != scim_id:
                raise ScimError("the answer is about a different user")

    def delete(self, scim_id: str) -> None:
        """Delete the user. A user that is not found counts as deleted; look it up to be sure."""
        try:
            with _writing("DELETE"):
                self._run(self._client.delete(ScimUser, scim_id))
        except UnfinishedError as error:
            if error.status != 404:
                raise

    def _lookup(self, query: str, is_sought: Callable[[ScimUser], bool]) -> list[ScimUser]:
        try:
            answer = self._run(
                self._client.query(ScimUser, SearchRequest[ScimUser](filter=ScimFilter[ScimUser](query)))
            )
        except ScimError as error:
            raise ScimUnavailableError(
                f"lookup: {error}", status=error.status, retry_after=error.retry_after
            ) from error
        if not isinstance(answer, ListResponse):
            raise ScimUnavailableError("lookup: the answer is empty", status=200)
        users = answer.resources or []
        if (answer.total_results or 0) > 0 and not users:
            raise ScimUnavailableError("lookup: the answer announces users and contains none", status=200)
        if not all(is_sought(user) and _is_usable_id(user.id) for user in users):
            # A server that ignores the filter returns others, and perhaps ours on a later page.
            raise ScimUnavailableError("lookup: the answer contains a different user", status=200)
        return users

    def _run(self, request: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(request)
        except (SCIMClientException, SCIMException) as error:
            # The notes of these errors quote values of users; their first lines don't.
            said = shortened(in_one_line(error), LAST_ANSWER_MAX)
            raise ScimError(f"not a SCIM answer: {said}", status=_status_of(error)) from None


@contextmanager
def _writing(method: str) -> Iterator[None]:
    """Classify the errors of a write."""
    try:
        yield
    except ScimError as error:
        text = f"{method}: {error}"
        # A deletion takes no value from another user, so its 409 is a failure.
        if error.is_unique and method != "DELETE":
            raise ScimError(text, status=error.status, is_unique=True) from error
        if error.status in _INVALID:
            raise RefusedError(text) from error
        kind = ScimUnavailableError if error.status in _NOT_NOW else UnfinishedError
        raise kind(text, status=error.status, retry_after=error.retry_after) from error


def _checked(created: object, user: ScimUser) -> ScimUser:
    if not isinstance(created, ScimUser) or not _is_usable_id(created.id):
        raise ScimError("the answer does not contain the new user")
    if created.external_id != user.external_id or not _same(created.user_name, user.user_name):
        raise ScimError("the answer is about a different user")
    return created


def _equals(attribute: str, value: str) -> str:
    """Return a filter. Its texts are JSON strings (RFC 7644, section 3.4.2.2)."""
    return f"{attribute} eq {json.dumps(value, ensure_ascii=False)}"


def _same(one: str | None, other: str | None) -> bool:
    """Whether the texts are equal for servers, which ignore case."""
    return (one or "").casefold() == (other or "").casefold()


def _is_usable_id(scim_id: str | None) -> bool:
    # PostgreSQL can't store NUL, and UTF-8 can't encode the lone surrogates of JSON: neither is printable.
    return bool(scim_id) and len(scim_id or "") <= SCIM_ID_MAX and (scim_id or "").isprintable()


class _BoundedClient(AsyncSCIMClient):
    """scim2-client's requests with a deadline, a limit for the size of answers, and our errors for failures."""

    # The time of time.monotonic() at which every request ends.
    deadline = math.inf

    async def request(self, method: str, url: str, **kwargs: Any) -> Response:
        headers = {"Content-Type": "application/scim+json"} if "json" in kwargs else {}
        within = min(ANSWERS_WITHIN, max(0.0, self.deadline - time.monotonic()))
        try:
            async with (
                asyncio.timeout(within),
                self.client.stream(method, url, headers=headers, **kwargs) as answer,
            ):
                response = Response(
                    answer.status_code,
                    headers=answer.headers,
                    content=await _body_of(answer),
                    request=answer.request,
                )
                # JSON is always in UTF-8 (RFC 8259). Python would follow a charset that is not one of text.
                response.encoding = "utf-8"
        except TimeoutError:
            raise ScimError(f"no complete answer within {within:.3g} s") from None
        except (HTTPError, InvalidURL, OSError) as error:
            said = in_one_line(f"{type(error).__name__}: {error}")
            raise ScimError(f"no answer: {shortened(said, LAST_ANSWER_MAX)}") from error
        if response.is_success:
            return response
        raise _refusal(response)


async def _body_of(answer: Response) -> bytes:
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise ScimError("the answer is compressed, which was not asked for", status=answer.status_code)
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise ScimError(f"the answer has more than {ANSWER_BYTES_MAX} bytes", status=answer.status_code)
    return bytes(body)


def _refusal(response: Response) -> ScimError:
    status, scim_type = response.status_code, ""
    with suppress(ValueError, RecursionError, AttributeError):
        scim_type = str(response.json().get("scimType") or "")
    text = f"{status} {response.reason_phrase}"
    if response.is_redirect:
        text += ", a redirect, which is not followed: correct the URL in SCIM_SERVERS"
    elif status == 401:
        text += ": check the server's token in SCIM_TOKENS"
    elif status in (403, 404):
        text += ": check the server's URL and the rights of its token"
    elif scim_type:
        text += f" ({shortened(scim_type, 40)})"
    return ScimError(
        text,
        status=status,
        is_unique=status == 409 or scim_type == "uniqueness",
        retry_after=_seconds(response.headers.get("retry-after", "")),
    )


def _seconds(retry_after: str) -> float:
    """Return the seconds of a Retry-After header, which is a number or a date (RFC 9110); 0 if it is invalid."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_MAX)
    try:
        until = parsedate_to_datetime(text)
        return min(max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds()), RETRY_AFTER_MAX)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _status_of(error: Exception) -> int | None:
    status = getattr(getattr(error, "source", None), "status_code", None)
    return status if isinstance(status, int) else None
