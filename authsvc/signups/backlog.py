"""Count the messages about event transactions that the services have not read yet."""

from authsvc.lights import AUTH, participants
from authsvc.signups.events import ANSWER_TOPICS, REQUEST_TOPICS
from eventbus.inspection.lag import LagReader


def unread_by_service(reader: LagReader) -> dict[str, int]:
    """Return the number of unread messages, by service. Raise TransientError if Kafka does not report them."""
    unread = {AUTH: sum(reader.lag(topic, AUTH) for topic in ANSWER_TOPICS.values())}
    for service in participants():
        unread[service] = sum(reader.lag(topic, service) for topic in REQUEST_TOPICS.values())
    return unread
