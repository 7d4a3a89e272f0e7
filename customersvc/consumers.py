"""What the customer service reads from Kafka; `manage.py consume_events customer` runs it."""

from eventbus.messages import Subscription

from customersvc.models import Customer
from participant.events import NEW_USER_REQUESTED
from participant.handler import NewUserHandler

new_users = Subscription(
    group="customer", topic=NEW_USER_REQUESTED, handle=NewUserHandler(service="customer", model=Customer)
)
