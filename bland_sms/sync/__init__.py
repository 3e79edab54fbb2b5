"""Pull: one conversation, the changes since last time, everything."""

from .driver import run
from .refreshing import Refreshed, refresh, refresh_many
from .runs import is_mirror_empty, last_copied_at

__all__ = [
    "Refreshed",
    "is_mirror_empty",
    "last_copied_at",
    "refresh",
    "refresh_many",
    "run",
]
