"""Database tools for all services: transactions, bulk SQL, search, and migrations of tables in use."""
