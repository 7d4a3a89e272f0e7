"""What a person does with an account, and what staff may do with those of others: login, passwords, two-factor."""
