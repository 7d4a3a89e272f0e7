"""What strangers and staff must not be able to do: attacks, each with the correct behaviour."""
