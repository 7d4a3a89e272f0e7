"""Chat's Kafka subscriptions, which `manage.py consume_events chat` runs."""

from chatsvc.models import ChatUser
from eventbus.messages import Subscription
from participant.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from participant.new_users import NewUserHandler
from participant.reconcile import RECONCILE_ANSWERED, RECONCILE_REQUESTED, ReconcileHandler

new_users = Subscription(
    group="chat",
    topic=NEW_USER_REQUESTED,
    handle=NewUserHandler(service="chat", model=ChatUser),
    answers_to=(NEW_USER_ANSWERED,),
)

# A separate consumer group, so that a new user never waits behind a page of hundreds of existing ones.
reconcile = Subscription(
    group="chat-reconcile",
    topic=RECONCILE_REQUESTED,
    handle=ReconcileHandler(service="chat", model=ChatUser),
    answers_to=(RECONCILE_ANSWERED,),
)

subscriptions = (new_users, reconcile)
