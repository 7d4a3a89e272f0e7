"""What the customer service reads from Kafka; `manage.py consume_events customer` runs it."""

from customersvc.models import Customer
from eventbus.messages import Subscription
from participant.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from participant.handler import NewUserHandler

new_users = Subscription(
    group="customer",
    topic=NEW_USER_REQUESTED,
    handle=NewUserHandler(service="customer", model=Customer),
    answers_to=(NEW_USER_ANSWERED,),
)
