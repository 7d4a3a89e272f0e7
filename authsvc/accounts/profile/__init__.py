"""The account page: owners see the lights of their account, and change its name and email address."""
