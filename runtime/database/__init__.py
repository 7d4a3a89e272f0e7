"""Work on a database that any service may need: transactions, many rows in a statement, searches, migrations in use."""
