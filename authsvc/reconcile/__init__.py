"""Comparing the participants' copies with auth's records, a page of owners at a time."""
