"""The local installation: what `make run` starts, keeps running and ends, with nothing installed but Python.

`preconditions` says in a line why it can't start, `processes` holds what is started, `installation` puts it together.
"""
