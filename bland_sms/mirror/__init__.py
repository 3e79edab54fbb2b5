"""The only writer of conversations and messages."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .apply import apply_conversation, apply_page, mark_missing, shown_together
    from .erasing import Erased, erase
    from .merge import Applied, Effect, Payload
    from .watching import watchers

__getattr__ = on_demand(
    __name__,
    apply="apply_conversation apply_page mark_missing shown_together",
    erasing="Erased erase",
    merge="Applied Effect Payload",
    watching="watchers",
)

__all__ = [
    "Applied",
    "Effect",
    "Erased",
    "Payload",
    "apply_conversation",
    "apply_page",
    "erase",
    "mark_missing",
    "shown_together",
    "watchers",
]
