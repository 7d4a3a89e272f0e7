"""Attacks by strangers and by staff, each with the correct behaviour."""
