"""The subscriptions of each service, as configured in EVENT_CONSUMERS, and of other readers (EVENT_READERS)."""

import inspect
from collections.abc import Iterator

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


def subscriptions_of_services() -> Iterator[Subscription]:
    """Yield the subscriptions of all services."""
    for service in settings.EVENT_CONSUMERS:
        yield from subscriptions_of(service)


def every_subscription() -> Iterator[Subscription]:
    """Yield the subscriptions of all services and readers."""
    yield from subscriptions_of_services()
    for path in settings.EVENT_READERS.values():
        yield import_string(path)()
