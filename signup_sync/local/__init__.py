"""The local installation, which `make run` starts, supervises and stops. It needs only Python.

`preconditions` and `databases` report in one line why it can't start, `processes` supervises processes, `installation`
puts the parts together, and `running` tells the other commands its addresses.
"""
