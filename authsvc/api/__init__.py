"""The HTTP API: requests, responses, problem documents, tickets, and event streams."""
