"""The Kafka subscriptions that every participant has."""

from collections.abc import Callable
from typing import TypeVar

from django.db.models import QuerySet

from eventbus.messages import Subscription
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
    # A separate consumer group, so that a new user never waits behind a page of hundreds of existing ones.
    reconcile = Subscription(
        group=f"{service}-reconcile",
        topics=(RECONCILE_REQUESTED, EXPORT_REQUESTED),
        handle=ByTopic(
            {
                RECONCILE_REQUESTED: ReconcileHandler(service, model, on_new_users),
                EXPORT_REQUESTED: ExportHandler(service, held=rows_held(model.objects.all())),
            }
        ),
        answers_to=(RECONCILE_ANSWERED, EXPORT_ANSWERED),
    )
    return accounts, reconcile
