"""Import users from a file: read its lines, check them, and register those that are valid."""
