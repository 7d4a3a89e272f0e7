"""Login, passwords and two-factor authentication: pages for account owners, and what staff may change for others."""
