"""Sign-ups that auth has saved, for tests that begin there. tests/client.py signs up over HTTP."""

from uuid import UUID, uuid4

from authsvc.lights import Status, Verdict
from authsvc.models import SignUp
from authsvc.signups.registration import NewSignUp, register_users
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts


def new_signup(
    user_id: str, *, email: str = "", name: str = "", signup_id: UUID | None = None, password: str = "not a hash"
) -> NewSignUp:
    """Return a sign-up that is not saved yet. By default, the email address and the name are made from the user ID."""
    return NewSignUp(
        signup_id=signup_id or uuid4(),
        user_id=user_id,
        email=email or f"{user_id}@example.org",
        user_name=name or user_id,
        role="ROLE_USER",
        password=password,
    )


def save_signup(
    user_id: str, *, email: str = "", name: str = "", signup_id: UUID | None = None, password: str = "not a hash"
) -> SignUp:
    """Save a sign-up. Auth's light is decided; the participants' lights are pending."""
    new = new_signup(user_id, email=email, name=name, signup_id=signup_id, password=password)
    register_users([new])
    return SignUp.objects.get(id=new.signup_id)


def save_signups(*user_ids: str) -> list[UUID]:
    """Save several sign-ups in one batch, and return their IDs."""
    batch = [new_signup(user_id) for user_id in user_ids]
    register_users(batch)
    return [new.signup_id for new in batch]


def complete(*signup_ids: UUID) -> None:
    """Turn the lights of both participants green."""
    apply_verdicts(
        [ReportedVerdict(each, Verdict(name, Status.SUCCESS)) for each in signup_ids for name in ("chat", "customer")]
    )
