"""Messages that a consumer could not handle: collected into a table, shown, replayed, discarded and purged."""
