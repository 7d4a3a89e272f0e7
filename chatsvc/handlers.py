"""Chat's Kafka subscriptions, which `manage.py consume_events chat` runs."""

from chatsvc.models import ChatUser
from eventbus.messages import Subscription
from participant.accounts import AccountHandler
from participant.events import ANSWERED, REQUESTED
from participant.export import EXPORT_ANSWERED, EXPORT_REQUESTED, ByTopic, ExportHandler, rows_held
from participant.reconcile import RECONCILE_ANSWERED, RECONCILE_REQUESTED, ReconcileHandler

accounts = Subscription(
    group="chat",
    topics=REQUESTED,
    handle=AccountHandler(service="chat", model=ChatUser),
    answers_to=ANSWERED,
)

# A separate consumer group, so that a new user never waits behind a page of hundreds of existing ones.
reconcile = Subscription(
    group="chat-reconcile",
    topics=(RECONCILE_REQUESTED, EXPORT_REQUESTED),
    handle=ByTopic(
        {
            RECONCILE_REQUESTED: ReconcileHandler(service="chat", model=ChatUser),
            EXPORT_REQUESTED: ExportHandler(service="chat", held=rows_held(ChatUser.objects.all())),
        }
    ),
    answers_to=(RECONCILE_ANSWERED, EXPORT_ANSWERED),
)

subscriptions = (accounts, reconcile)
