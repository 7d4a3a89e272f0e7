"""How many messages about sign-ups the services have not read yet."""

from authsvc.lights import AUTH, participants
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from eventbus.inspection.lag import LagReader


def unread_by_service(reader: LagReader) -> dict[str, int]:
    """Return the number of unread messages, by service. Raise TransientError if Kafka does not report them."""
    unread = {AUTH: reader.lag(NEW_USER_ANSWERED, AUTH)}
    return unread | {service: reader.lag(NEW_USER_REQUESTED, service) for service in participants()}
