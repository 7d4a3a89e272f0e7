"""The subscriptions of each service, as configured in EVENT_CONSUMERS."""

import inspect

from django.conf import settings
from django.utils.module_loading import import_string

from eventbus.messages import Subscription


def subscriptions_of(service: str) -> tuple[Subscription, ...]:
    """Return a service's subscriptions. Its dotted path in EVENT_CONSUMERS names one, a tuple of them, or a function
    that returns either for a service's name."""
    named = import_string(settings.EVENT_CONSUMERS[service])
    if inspect.isfunction(named):
        named = named(service)
    return (named,) if isinstance(named, Subscription) else tuple(named)
