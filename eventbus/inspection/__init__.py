"""Looking into Kafka without taking part: topics, messages, groups, and how far behind they are."""
