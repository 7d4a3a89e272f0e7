"""Search: indexes the events of all topics into OpenSearch (docs/adr/0076)."""
