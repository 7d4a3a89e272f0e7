"""The customer service's Kafka subscriptions, which `manage.py consume_events customer` runs."""

from customersvc.models import Customer
from eventbus.messages import Subscription
from participant.accounts import AccountHandler
from participant.events import ANSWERED, REQUESTED
from participant.export import EXPORT_ANSWERED, EXPORT_REQUESTED, ByTopic, ExportHandler, rows_held
from participant.reconcile import RECONCILE_ANSWERED, RECONCILE_REQUESTED, ReconcileHandler

accounts = Subscription(
    group="customer",
    topics=REQUESTED,
    handle=AccountHandler(service="customer", model=Customer),
    answers_to=ANSWERED,
)

# A separate consumer group, so that a new user never waits behind a page of hundreds of existing ones.
reconcile = Subscription(
    group="customer-reconcile",
    topics=(RECONCILE_REQUESTED, EXPORT_REQUESTED),
    handle=ByTopic(
        {
            RECONCILE_REQUESTED: ReconcileHandler(service="customer", model=Customer),
            EXPORT_REQUESTED: ExportHandler(service="customer", held=rows_held(Customer.objects.all())),
        }
    ),
    answers_to=(RECONCILE_ANSWERED, EXPORT_ANSWERED),
)

subscriptions = (accounts, reconcile)
