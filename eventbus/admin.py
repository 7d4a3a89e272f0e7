"""The pages of the administration about Kafka; each module registers its own."""

from eventbus.deadletters import letters_admin  # noqa: F401
from eventbus.inspection import topics_page  # noqa: F401
