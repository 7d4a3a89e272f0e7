"""Two-factor authentication: after the password, a code from an app or a recovery code (docs/adr/0046)."""
