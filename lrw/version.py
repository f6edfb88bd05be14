"""The version, read by hatchling and by whoever saves a file."""

__version__ = "0.1.0"
