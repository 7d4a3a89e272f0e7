"""Bases for the classes of Django's admin: what they refuse, and pages that show no rows."""
