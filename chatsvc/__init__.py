"""Chat, a participant: keeps its own copy of the users."""
