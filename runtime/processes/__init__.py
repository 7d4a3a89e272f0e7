"""The life of a process: its start and end, its health, its entry on the list of instances, and its threads."""
