"""The Kafka subscriptions that every participant has."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models import QuerySet

from eventbus.messages import Handler, Subscription
from participant.accounts import AccountHandler
from participant.events import ANSWERED, REQUESTED
from participant.export import EXPORT_ANSWERED, EXPORT_REQUESTED, ByTopic, ExportHandler, rows_held
from participant.models import ParticipantUser
from participant.reconcile import RECONCILE_ANSWERED, RECONCILE_REQUESTED, ReconcileHandler

UserT = TypeVar("UserT", bound=ParticipantUser)


def participant_subscriptions(
    service: str, model: type[UserT], *, on_new_users: Callable[[QuerySet[UserT]], None] | None = None
) -> tuple[Subscription, Subscription]:
    """Return the subscriptions of the participant `service`, which stores its users as `model`.

    `on_new_users` is called with each batch of new users; see participant.new_users.
    """
    accounts = Subscription(
        # The relay reads the consumer lag of the group that has the service's name.
        group=service,
        topics=REQUESTED,
        handle=AccountHandler(service, model, on_new_users),
        answers_to=ANSWERED,
    )
    return accounts, reconcile_subscription(
        service, ReconcileHandler(service, model, on_new_users), exports=model.objects.all()
    )


def reconcile_subscription(
    service: str, reconcile: Handler, *, exports: QuerySet[Any], batch: int | None = None
) -> Subscription:
    """Return the subscription for pages of reconcile, and for exports, which contain these rows. It has a group of its
    own, so that a new user never waits behind a page of hundreds of existing ones."""
    export = ExportHandler(service, held=rows_held(exports))
    return Subscription(
        group=f"{service}-reconcile",
        topics=(RECONCILE_REQUESTED, EXPORT_REQUESTED),
        handle=ByTopic({RECONCILE_REQUESTED: reconcile, EXPORT_REQUESTED: export}),
        answers_to=(RECONCILE_ANSWERED, EXPORT_ANSWERED),
        batch=batch,
    )
