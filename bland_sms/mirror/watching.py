"""Who is told of what was written. A module of its own, that start-up reads without the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models import Conversation

watchers: list[Callable[[Sequence[Conversation]], None]] = []
"""Called after commit with the rows of a page that are new or have changed, as they were written.
For our own modules further down; a host listens to the signals."""
