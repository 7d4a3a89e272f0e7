"""The HTTP API: requests, answers, problems, tickets, and the streams that are held open."""
