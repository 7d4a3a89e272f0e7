"""Register the admin pages about Kafka: each of these modules registers its own."""

from eventbus.deadletters import letters_admin  # noqa: F401
from eventbus.inspection import topics_page  # noqa: F401
