"""Code shared by all participants: the user's row, the verdict on a request, the batch handlers, and the admin."""
