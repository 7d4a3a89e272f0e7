"""The subscriptions of each service, as configured in EVENT_CONSUMERS."""

from django.conf import settings
from django.utils.module_loading import import_string

from eventbus.messages import Subscription


def subscriptions_of(service: str) -> tuple[Subscription, ...]:
    """Return a service's subscriptions. Its dotted path in EVENT_CONSUMERS names one, or a tuple of them."""
    named = import_string(settings.EVENT_CONSUMERS[service])
    return (named,) if isinstance(named, Subscription) else tuple(named)
