"""A backend of Django for PostgreSQL, whose pool replaces ended connections at once."""
