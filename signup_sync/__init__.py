"""The project. `__version__` is the version of a release; tests/unit/test_version.py lists the files that repeat it."""

__version__ = "1.0.0"
