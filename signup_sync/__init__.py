"""The project. `__version__` is the only place that states the version of a release."""

__version__ = "1.0.0"
