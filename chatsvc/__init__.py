"""The chat service: a participant that stores its own copy of the users."""
