"""Pull: one conversation, the changes since last time, everything."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .driver import run
    from .owed import Looked, look_at_owed
    from .refreshing import Refreshed, refresh, refresh_many
    from .runs import (
        FULL_WAIT_SECONDS,
        copied_at,
        is_mirror_empty,
        last_attempt,
        last_copied_at,
        last_full_walk_at,
    )

__getattr__ = on_demand(
    __name__,
    driver="run",
    owed="Looked look_at_owed",
    refreshing="Refreshed refresh refresh_many",
    runs=(
        "FULL_WAIT_SECONDS copied_at is_mirror_empty last_attempt last_copied_at last_full_walk_at"
    ),
)

__all__ = [
    "FULL_WAIT_SECONDS",
    "Looked",
    "Refreshed",
    "copied_at",
    "is_mirror_empty",
    "last_attempt",
    "last_copied_at",
    "last_full_walk_at",
    "look_at_owed",
    "refresh",
    "refresh_many",
    "run",
]
