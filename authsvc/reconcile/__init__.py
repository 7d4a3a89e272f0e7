"""Reconciliation: compare the participants' copies with auth's users, one page of owners at a time."""
