"""Close an account: the owner's request, the grace period, and the removal when it is over."""
