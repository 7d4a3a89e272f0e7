"""A simulation of queues and lights under load and failure, and its comparison with the product (docs/scaling.md).

`engine` has the clock and the scheduler, `queues` processes and batches, `model` the stages of a sign-up, and `costs`
their CPU. `samples` measures the product under load, `recorded` keeps results, and `comparison` compares them with the
model's.
"""
