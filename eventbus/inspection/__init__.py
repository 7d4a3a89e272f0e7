"""Read-only inspection of Kafka: topics, messages, consumer groups and their lag."""
