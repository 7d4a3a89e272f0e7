"""What each service reads, as EVENT_CONSUMERS in the settings names it."""

from django.conf import settings
from django.utils.module_loading import import_string

from eventbus.messages import Subscription


def subscriptions_of(service: str) -> tuple[Subscription, ...]:
    """The subscriptions of a service: its dotted path in EVENT_CONSUMERS leads to one, or to a tuple of them."""
    named = import_string(settings.EVENT_CONSUMERS[service])
    return (named,) if isinstance(named, Subscription) else tuple(named)
