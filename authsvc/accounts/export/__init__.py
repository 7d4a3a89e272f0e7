"""Everything that all services hold about an account, for its owner."""
