"""What every participant shares: the row of a user, the verdict on a request, the handler of a batch, the admin."""
