"""Save a new sign-up, or find the one that a request repeats (docs/openapi.yaml, Idempotency-Key)."""

from http import HTTPStatus
from uuid import UUID

from django.contrib.auth.hashers import check_password, make_password
from django.utils.translation import override

from authsvc.api.database_threads import DatabaseThreads
from authsvc.api.problems import Problem, expired_key
from authsvc.api.signup_requests import SignUpRequest, check_password_strength
from authsvc.lights import TransactionState
from authsvc.metrics import UNCONFIRMED
from authsvc.models import SignUp, UnconfirmedSignUp
from authsvc.signups.confirmation import save_unconfirmed
from authsvc.signups.hash_pool import HashPool
from authsvc.signups.registration import NewSignUp
from authsvc.signups.writer import SignUpWriter
from livesettings.values import live
from runtime.equality import user_id_key


class Registrar:
    """Registers the sign-ups of `POST /user`. A repeated request joins the sign-up that has its key."""

    def __init__(self, writer: SignUpWriter, hashes: HashPool, database: DatabaseThreads) -> None:
        self._writer = writer
        self._hashes = hashes
        self._database = database

    async def register(self, signup_id: UUID, request: SignUpRequest, language: str) -> list[TransactionState]:
        """Save the sign-up, or find it. Return the states with which its stream starts, the current one last.

        Raises Problem 422 for a weak password, and 409 if the sign-up with this key has other content or is too old.
        """
        password = await self._hashes.run(lambda: _checked_hash(request, language))
        new = NewSignUp(
            signup_id=signup_id,
            user_id=request.user_id,
            email=request.email,
            user_name=request.user_name,
            role=request.role,
            password=password,
        )
        if live.SIGNUP_CONFIRM == "mail":
            return [await self._keep_unconfirmed(new, request)]
        registration = await self._writer.register(new)
        state = registration.state
        if registration.is_new:
            # First all lights pending, then auth's own verdict, which the same transaction decided.
            return [_begun(state), state]
        await self._check_repetition(request, registration.signup)
        return [state]

    async def _keep_unconfirmed(self, new: NewSignUp, request: SignUpRequest) -> TransactionState:
        kept, is_new = await self._database.run(lambda: save_unconfirmed(new))
        if is_new:
            UNCONFIRMED.labels("begun").inc()
        else:
            await self._check_repetition(request, kept)
        return kept.state

    async def _check_repetition(self, request: SignUpRequest, kept: SignUp | UnconfirmedSignUp) -> None:
        """Raise Problem 409 unless the request has the same content as the first one with its key."""
        if isinstance(kept, SignUp) and not kept.may_be_repeated:
            raise expired_key()
        if not await self._is_same(request, kept):
            raise Problem(HTTPStatus.CONFLICT, "This Idempotency-Key belongs to a sign-up with different content.")

    async def _is_same(self, request: SignUpRequest, signup: SignUp | UnconfirmedSignUp) -> bool:
        """Whether a repeated request has the same content as the first one; the password is compared with its hash."""
        typed = (user_id_key(request.user_id), request.email, request.user_name, request.role)
        if typed != (signup.user_id_key, signup.email, signup.user_name, signup.role):
            return False
        return await self._hashes.run(lambda: check_password(request.password, signup.password))


def _begun(state: TransactionState) -> TransactionState:
    return TransactionState.all_pending(state.transaction_id, started_at=state.started_at, services=state.lights)


def _checked_hash(request: SignUpRequest, language: str) -> str:
    # The pool's thread doesn't inherit the request's language.
    with override(language):
        check_password_strength(request)
    return make_password(request.password)
