"""Reads and validates the settings: the environment, `.env`, and the values that production refuses."""
