"""The local installation: what `make run` starts, keeps running and ends, with nothing installed but Python.

`preconditions` and `databases` say in a line why it can't start, `processes` holds what is started, `installation` puts
it together, `running` tells the other commands where it is.
"""
