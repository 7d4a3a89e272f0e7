"""A rolling upgrade or rollback: members of one group whose releases read different topics (docs/upgrading.md).

The previous release's participants read only the topic of new users; this one's also read changes and removals.
"""

import secrets
from dataclasses import replace

import pytest

from eventbus.messages import Subscription
from eventbus.topics import ensure_topics
from tests.broker import RecordingHandler, committed, consuming, new_topic, put
from tests.waiting import eventually

pytestmark = pytest.mark.needs("broker")


class Rollout:
    """A group with a subscription of each release, and what was put into each topic."""

    def __init__(self) -> None:
        self.shared, self.added = new_topic(), new_topic()
        self.handlers = {"old": RecordingHandler(), "new": RecordingHandler()}
        group = f"group-{secrets.token_hex(6)}"
        self.old = Subscription(group=group, topics=(self.shared,), handle=self.handlers["old"])
        self.new = Subscription(group=group, topics=(self.shared, self.added), handle=self.handlers["new"])
        ensure_topics(self.new.every_topic)
        self.put_so_far: dict[str, list[bytes]] = {self.shared: [], self.added: []}

    def put(self, topic: str, count: int = 40) -> None:
        values = [b"%d" % (len(self.put_so_far[topic]) + n) for n in range(count)]
        put(topic, *values)
        self.put_so_far[topic] += values

    def handled(self, topic: str) -> set[bytes | None]:
        """The values that a member of either release has handled."""
        both = (message for handler in self.handlers.values() for message in handler.handled)
        return {message.value for message in both if message.topic == topic}

    def is_done(self, topic: str) -> bool:
        """Whether everything in the topic is handled and committed by the group."""
        places = committed(replace(self.new, topics=(topic,)))
        wanted = self.put_so_far[topic]
        return self.handled(topic) == set(wanted) and sum(places.values()) == len(wanted)


@pytest.fixture
def rollout() -> Rollout:
    return Rollout()


def test_an_upgrade_loses_nothing_and_topics_that_only_the_new_release_reads_wait_for_it(rollout):
    # The old member joins first, so it leads the group and assigns partitions of a topic that it does not read.
    with consuming(rollout.old):
        rollout.put(rollout.shared)
        rollout.put(rollout.added)
        eventually(lambda: rollout.is_done(rollout.shared))
        assert rollout.handled(rollout.added) == set()
        with consuming(rollout.new):
            eventually(lambda: rollout.is_done(rollout.added))
            rollout.put(rollout.shared)
            rollout.put(rollout.added)
            eventually(lambda: rollout.is_done(rollout.shared) and rollout.is_done(rollout.added))
    assert not [message for message in rollout.handlers["old"].handled if message.topic == rollout.added]


def test_a_rollback_leaves_the_new_topics_messages_for_the_next_upgrade(rollout):
    with consuming(rollout.new) as new:
        rollout.put(rollout.added)
        eventually(lambda: rollout.is_done(rollout.added))
        with consuming(rollout.old):
            rollout.put(rollout.shared)
            rollout.put(rollout.added)
            eventually(lambda: rollout.is_done(rollout.shared) and rollout.is_done(rollout.added))
            new.stop()
            before = rollout.handled(rollout.added)
            batches = len(rollout.handlers["new"].batches)
            rollout.put(rollout.shared)
            rollout.put(rollout.added)
            eventually(lambda: rollout.is_done(rollout.shared))
            assert rollout.handled(rollout.added) == before
            with consuming(rollout.new):
                eventually(lambda: rollout.is_done(rollout.added))
    # The group's offsets in the topic survived while no member read it.
    later = [message for batch in rollout.handlers["new"].batches[batches:] for message in batch]
    assert not before & {message.value for message in later if message.topic == rollout.added}
