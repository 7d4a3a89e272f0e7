"""The HTTP API of auth: a plain ASGI application beside Django (docs/adr/0003, docs/openapi.yaml)."""

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from http import HTTPStatus
from typing import Final, TypeVar
from uuid import UUID

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.contrib.auth.hashers import check_password
from django.utils.translation import override

from authsvc.accounts.api_sessions import may_add_admin, may_see_change
from authsvc.api.database_threads import DatabaseThreads
from authsvc.api.header_values import asks_for_stream
from authsvc.api.http_messages import (
    header,
    language,
    read_body,
    send_empty,
    send_head_of_stream,
    send_json,
    send_problem,
    send_stream,
)
from authsvc.api.hub import StreamHub
from authsvc.api.problems import Problem, expired_key, too_many, unavailable, unusable_link, wrong_password
from authsvc.api.registrar import Registrar
from authsvc.api.request_heads import (
    has_session,
    has_ticket,
    id_in_path,
    last_event_id,
    name_in_log,
    not_found,
    peer,
    refuse_plain_http,
    sender,
    wants_took,
)
from authsvc.api.signup_requests import (
    BODY_MAX,
    Confirmation,
    SignUpRequest,
    read_confirmation,
    read_idempotency_key,
    read_json,
    read_signup,
)
from authsvc.api.streams import after_first, follow
from authsvc.lights import TransactionState
from authsvc.mail import mail_worker
from authsvc.metrics import UNCONFIRMED
from authsvc.models import Role
from authsvc.rate_limits import RateLimits, TooManyError
from authsvc.signups import publisher
from authsvc.signups.confirmation import ConfirmationLinkError, confirm, row_of
from authsvc.signups.confirmation_mails import mail_soon
from authsvc.signups.hash_pool import HashPool
from authsvc.signups.projection import AsyncProjection
from authsvc.signups.registration import KeyTakenError
from authsvc.signups.states import read_states
from authsvc.signups.writer import LEAVES_WITHIN, SignUpWriter
from authsvc.tickets import forwarded_address, issue_ticket
from eventbus.producer import EventProducer
from livesettings.values import live
from runtime.equality import user_id_key
from runtime.errors import is_transient
from runtime.held_connections import RETRY_AFTER, HeldConnections, TooManyHeldError
from runtime.processes.bounded_pool import QueueFullError
from runtime.tracing import traceparent

logger = logging.getLogger(__name__)
T = TypeVar("T")

# A ticket opens its event transaction at either path.
_STATE_PATH: Final = re.compile(r"/user/(?P<kind>signups|changes)/(?P<id>[0-9a-fA-F-]{36})(?P<events>/events)?")


class SignUpApi:
    """The ASGI application: `POST /user`, confirmations, states and streams. For use in one event loop."""

    def __init__(self) -> None:
        self._held = HeldConnections()
        self._database = DatabaseThreads()
        self._limits = RateLimits()
        self._hashes = HashPool(limit=settings.HASH_QUEUE_LIMIT)
        self._projection = AsyncProjection()
        self._hub = StreamHub(self._projection, self._read_states)

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            await self._route(scope, receive, send)
        except Problem as problem:
            await send_problem(send, problem)
        except ConfirmationLinkError as error:
            await send_problem(send, unusable_link(error.reason))
        except QueueFullError:
            await send_problem(send, unavailable("Too many sign-ups at once. Try again in a moment.", retry_after=5))
        except KeyTakenError:
            await send_problem(send, expired_key())
        except TooManyHeldError:
            await send_problem(send, too_many("held", retry_after=RETRY_AFTER))
        except Exception as error:
            if is_transient(error):
                logger.warning("%s %s: a dependency is unavailable: %s", scope["method"], scope["path"], error)
                await send_problem(send, unavailable("The service is temporarily unavailable. Try again in a moment."))
            else:
                logger.exception("%s %s failed", scope["method"], scope["path"])
                await send_problem(
                    send, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "An internal error occurred; it has been logged.")
                )

    def start(self) -> None:
        """Create the producer before the first sign-up needs it: Kafka takes half a second to assign its ID."""
        _ = self._writer

    def drain(self) -> None:
        """Drain: end current and new streams, so that clients reconnect elsewhere; reject queued sign-ups with 503."""
        self._hub.drain()
        self._hashes.close()

    async def close(self) -> None:
        """Stop the background tasks and close the event loop's connections."""
        # Work that pages have left behind. Each wait has a deadline of its own.
        left = (mail_worker().drain, partial(publisher.close, LEAVES_WITHIN))
        leaving = [asyncio.create_task(asyncio.to_thread(each)) for each in left]
        await self._writer.close()
        await self._hub.close()
        await self._projection.close()
        await self._limits.close()
        await asyncio.gather(*leaving)

    async def _route(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        refuse_plain_http(scope)
        path = scope["path"]
        match = _STATE_PATH.fullmatch(path)
        if not match and path not in ("/user", "/user/confirmations"):
            raise not_found()
        allowed = ("GET", "HEAD", "OPTIONS") if match else ("OPTIONS", "POST")
        if scope["method"] not in allowed:
            words = f"Use {' or '.join(name for name in allowed if name != 'OPTIONS')}."
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, words, headers={"Allow": ", ".join(allowed)})
        if scope["method"] == "OPTIONS":
            await send_empty(send, HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join(allowed)})
        elif not match:
            await (self._sign_up if path == "/user" else self._confirm)(scope, receive, send)
        else:
            signup_id = id_in_path(match["id"])
            if not has_ticket(scope, signup_id) and not (
                match["kind"] == "changes"
                and has_session(scope)
                and await self._database.run(lambda: may_see_change(scope, signup_id))
            ):
                raise not_found()
            name_in_log(scope, signup_id)
            if match["events"]:
                await self._resume(scope, receive, send, signup_id)
            else:
                await self._show(scope, send, signup_id)

    async def _sign_up(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        signup_id, request = await self._read_request(scope, receive)
        is_stream = asks_for_stream(header(scope, b"accept") or "")
        # Register the watch before saving or reading: participants may answer before this coroutine continues.
        with (
            self._holding(scope, signup_id) if is_stream else nullcontext(),
            self._hub.watching(signup_id) as watch,
        ):
            begin = await self._registrar.register(signup_id, request, language(scope))
            # Queue the mail only after the response: which mail it is depends on whether the user exists.
            then = None
            if begin[-1].is_unconfirmed:
                then = partial(mail_soon, signup_id, address=sender(scope, signup_id), language=language(scope))
            # Don't keep the submitted fields and the rows in memory while the stream is open (docs/adr/0023).
            del request
            headers = {"Signup-Ticket": issue_ticket(signup_id), "Traceresponse": traceparent(signup_id)}
            if not is_stream:
                headers["Location"] = f"/user/signups/{signup_id}"
                await send_json(
                    send, HTTPStatus.ACCEPTED, begin[-1].as_wire(with_took=wants_took(scope)), headers=headers
                )
                if then is not None:
                    then()
                return
            events = follow(watch, begin, seen=0, with_took=wants_took(scope))
            if then is not None:
                events = after_first(events, then)
            del begin
            await send_stream(send, receive, events, headers=headers, on_leave=watch.close)

    async def _read_request(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> tuple[UUID, SignUpRequest]:
        document = read_json(await read_body(scope, receive, limit=BODY_MAX), header(scope, b"content-type") or "")
        signup_id = read_idempotency_key(key := header(scope, b"idempotency-key"))
        name_in_log(scope, signup_id)
        with override(language(scope)):
            request = read_signup(document)
        # Reject overload before counting against rate limits, and before hashing in vain.
        if self._hashes.is_full or self._writer.is_full:
            raise QueueFullError
        await self._admit(scope, signup_id, request, has_key=key is not None)
        is_admin = request.role == Role.ADMIN
        if is_admin and not await self._database.run(lambda: may_add_admin(scope, user_id=request.user_id)):
            raise Problem(HTTPStatus.FORBIDDEN, "Only staff may sign up an administrator.")
        return signup_id, request

    async def _admit(self, scope: HTTPScope, signup_id: UUID, request: SignUpRequest, *, has_key: bool) -> None:
        """Raise Problem if sign-up is closed or a rate limit is reached. A repetition of an existing sign-up is still
        admitted, because the first response may have been lost, but only a limited number of times."""
        refusal = _closed()
        if refusal is None:
            try:
                await self._limits.count(address=sender(scope, signup_id), user_id_key=user_id_key(request.user_id))
            except TooManyError as error:
                refusal = too_many(error.limit, retry_after=error.retry_after)
        if refusal is not None and not (has_key and await self._may_repeat(signup_id)):
            raise refusal

    async def _may_repeat(self, signup_id: UUID) -> bool:
        return bool(await self._read_states([signup_id])) and await self._limits.count_repetition(signup_id)

    async def _confirm(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        document = read_json(await read_body(scope, receive, limit=BODY_MAX), header(scope, b"content-type") or "")
        with override(language(scope)):
            confirmation = read_confirmation(document)
            await self._check_confirmation(confirmation)
        registration = await self._writer.confirm(lambda: confirm(confirmation.token))
        UNCONFIRMED.labels("confirmed").inc()
        state = registration.state
        # Wake the streams that watch it, on every instance.
        await self._projection.copy(state)
        headers = {
            "Signup-Ticket": issue_ticket(state.transaction_id),
            "Traceresponse": traceparent(state.transaction_id),
        }
        await send_json(send, HTTPStatus.OK, state.as_wire(with_took=wants_took(scope)), headers=headers)

    async def _check_confirmation(self, confirmation: Confirmation) -> None:
        """Raise Problem unless the token is valid and the password is the one chosen at the sign-up: the reader of the
        mail may not be the person who signed up. No user is looked up."""
        # Check here, in the bounded database threads, so that a used link doesn't occupy the writer.
        row = await self._database.run(lambda: row_of(confirmation.token))
        if self._hashes.is_full:
            raise QueueFullError
        try:
            await self._limits.count_confirmation(row.id)
        except TooManyError as error:
            raise too_many(error.limit, retry_after=error.retry_after) from error
        if not await self._hashes.run(lambda: check_password(confirmation.password, row.password)):
            raise wrong_password()

    async def _show(self, scope: HTTPScope, send: ASGISendCallable, signup_id: UUID) -> None:
        state = await self._state(signup_id)
        await send_json(send, HTTPStatus.OK, state.as_wire(with_took=wants_took(scope)))

    async def _resume(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable, signup_id: UUID
    ) -> None:
        with self._holding(scope, signup_id), self._hub.watching(signup_id) as watch:
            state = await self._state(signup_id)
            # Ignore a Last-Event-ID beyond the current version: the client can't have seen it.
            seen = min(last_event_id(scope), state.version)
            if state.is_complete and seen == state.version:
                await send_empty(send, HTTPStatus.NO_CONTENT)
                return
            if scope["method"] == "HEAD":
                await send_head_of_stream(send)
                return
            events = follow(watch, [state], seen=seen, with_took=wants_took(scope))
            await send_stream(send, receive, events, on_leave=watch.close)

    def _holding(self, scope: HTTPScope, signup_id: UUID) -> AbstractContextManager[None]:
        """Count an open stream. Raise TooManyHeldError. Streams from the front aren't counted by address, which would
        be the front's own; the front counts the WebSockets that they serve."""
        is_front = forwarded_address(header(scope, b"signup-address") or "", signup_id) is not None
        return self._held.one(signup=str(signup_id), address=None if is_front else peer(scope))

    async def _state(self, signup_id: UUID) -> TransactionState:
        """Return the projection's copy if it is complete, else read auth's database, because an incomplete copy may be
        outdated. Raise Problem 404."""
        if (state := await self._projection.read(signup_id)) and state.is_complete:
            return state
        states = await self._read_states([signup_id])
        if signup_id not in states:
            raise not_found()
        await self._projection.copy(states[signup_id])
        return states[signup_id]

    async def _read_states(self, signup_ids: Sequence[UUID]) -> dict[UUID, TransactionState]:
        return await self._database.run(lambda: read_states(signup_ids))

    @cached_property
    def _writer(self) -> SignUpWriter:
        # Created by start() or on first use, because the producer's thread connects to Kafka.
        return SignUpWriter(EventProducer(), self._projection, self._hashes)

    @cached_property
    def _registrar(self) -> Registrar:
        return Registrar(self._writer, self._hashes, self._database)


def _closed() -> Problem | None:
    if live.SIGNUP_OPEN:
        return None
    return Problem(HTTPStatus.FORBIDDEN, "Sign-up is closed at the moment.", kind="/problems/closed")
