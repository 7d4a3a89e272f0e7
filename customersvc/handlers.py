"""The customer service's Kafka subscriptions, which `manage.py consume_events customer` runs."""

from customersvc.models import Customer
from participant.subscriptions import participant_subscriptions

subscriptions = participant_subscriptions("customer", Customer)
