"""What Django does around every page: middleware, stored messages, and the answer to an outdated form."""
