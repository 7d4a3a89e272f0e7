"""The five kinds of users who may request a page of the administration, and one row of each model to request."""

from typing import Final
from uuid import uuid4

from django.contrib.auth.models import Group, Permission
from django.db.models import Model, Q
from django.utils import timezone

from authsvc.models import EventTransaction, UnconfirmedSignUp, User
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.registration import NewSignUp, register_users
from eventbus.models import DeadLetter
from livesettings.models import Overrides
from scimsvc.models import ScimAccount
from tests.participants import ADMIN_PATHS, MODELS
from tests.users import new_user

ANONYMOUS, WITHOUT, VIEW, CHANGE, SUPER = KINDS = ("anonymous", "without", "view", "change", "super")
# Everything but administrators' own privileges: may view, add, change, delete, replay and handle.
OF_CHANGE: Final = (
    Q(codename__regex="^(view|add|change|delete)_") | Q(codename__in=["replay_signup", "handle_deadletter"])
) & ~Q(codename="add_admin")


def person_of(kind: str) -> User | None:
    if kind == ANONYMOUS:
        return None
    user = new_user(f"{kind}-staff", is_staff=True, is_superuser=kind == SUPER)
    granted = {VIEW: Q(codename__startswith="view_"), CHANGE: OF_CHANGE}.get(kind)
    if granted is not None:
        user.user_permissions.add(*Permission.objects.filter(granted))
    return user


def rows() -> dict[str, Model]:
    """One row of each model, by the model's label; `staff` and `administrator` are other users than the plain one."""
    new = NewSignUp(
        signup_id=uuid4(), user_id="plain-user", email="plain-user@example.com", user_name="Plain", role="ROLE_USER",
        password="argon2$argon2id$v=19$m=512,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
    )  # fmt: skip
    register_users([new])
    copy = {"user_id": "plain-user", "email": "plain-user@example.com", "user_name": "Plain"}
    letter = {
        "letter_topic": "a.dlt",
        "letter_partition": 0,
        "letter_offset": 0,
        "topic": NEW_USER_REQUESTED,
        "key": b"plain-user",
    }
    waiting = UnconfirmedSignUp(id=uuid4(), **copy, user_id_key="plain-user", password=new.password)
    waiting.save()
    return {
        "authsvc_unconfirmedsignup": waiting,
        "authsvc_user": User.objects.get(user_id="plain-user"),
        "authsvc_user@staff": new_user("other-staff", is_staff=True),
        "authsvc_user@superuser": new_user("other-super", is_superuser=True),
        "authsvc_user@administrator": new_user("administrator-user", role="ROLE_ADMIN"),
        "auth_group": Group.objects.create(name="group"),
        "authsvc_eventtransaction": EventTransaction.objects.get(id=new.signup_id),
        **{ADMIN_PATHS[name].replace("/", "_"): model.objects.create(**copy) for name, model in MODELS.items()},
        "scimsvc_scimaccount": ScimAccount.objects.create(server="crm", owner_signup_id=new.signup_id),
        "eventbus_deadletter": DeadLetter.objects.create(put_aside_at=timezone.now(), **letter),
        "livesettings_overrides": Overrides.objects.get_or_create(pk=1)[0],
    }
