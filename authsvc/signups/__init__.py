"""A sign-up from its registration to its last light: written, published, answered, repeated, replayed and purged."""
