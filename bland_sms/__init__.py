"""A mirror of a Bland AI account's SMS conversations, and a way to act on them in bulk."""

__version__ = "0.1.0"
