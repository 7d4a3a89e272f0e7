"""Chat's Kafka subscriptions, which `manage.py consume_events chat` runs."""

from chatsvc.models import ChatUser
from participant.subscriptions import participant_subscriptions

subscriptions = participant_subscriptions("chat", ChatUser)
