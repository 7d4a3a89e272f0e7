"""A Django database backend for PostgreSQL whose pool replaces ended connections at once."""
