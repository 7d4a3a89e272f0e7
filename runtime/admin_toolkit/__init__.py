"""Base classes for Django's admin: access restrictions, and pages that are not lists of rows."""
