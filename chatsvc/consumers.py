"""What chat reads from Kafka; `manage.py consume_events chat` runs it."""

from chatsvc.models import ChatUser
from eventbus.messages import Subscription
from participant.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from participant.handler import NewUserHandler

new_users = Subscription(
    group="chat",
    topic=NEW_USER_REQUESTED,
    handle=NewUserHandler(service="chat", model=ChatUser),
    answers_to=(NEW_USER_ANSWERED,),
)
