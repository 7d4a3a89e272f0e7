"""A simulation of queues and lights under load and failure, and its comparison with the product (docs/scaling.md).

`engine` has the clock and the cores, `model` the stages of a sign-up, and `costs` their measured CPU. `comparison`
measures the costs and a result in one run, and compares that result with the simulated one.
"""
