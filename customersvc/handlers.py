"""What the customer service reads from Kafka; `manage.py consume_events customer` runs it."""

from customersvc.models import Customer
from eventbus.messages import Subscription
from participant.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from participant.new_users import NewUserHandler
from participant.reconcile import RECONCILE_ANSWERED, RECONCILE_REQUESTED, ReconcileHandler

new_users = Subscription(
    group="customer",
    topic=NEW_USER_REQUESTED,
    handle=NewUserHandler(service="customer", model=Customer),
    answers_to=(NEW_USER_ANSWERED,),
)

# A group of its own: a new user never waits behind a page of a thousand old ones.
reconcile = Subscription(
    group="customer-reconcile",
    topic=RECONCILE_REQUESTED,
    handle=ReconcileHandler(service="customer", model=Customer),
    answers_to=(RECONCILE_ANSWERED,),
)

subscriptions = (new_users, reconcile)
