"""Push: the ledger of updates asked of Bland, and the one function that carries them out."""

from .decisions import cancel, left_alone, proceed, retry, undo, undoable
from .driver import run
from .ledger import (
    DRAFT_LIFE,
    Driver,
    EmptySelectionError,
    SelectionError,
    SelectionTooLargeError,
    carry_out,
    driver_of,
    expire_drafts,
    hand_over,
    prepare,
    start,
    waiting_updates,
)

__all__ = [
    "DRAFT_LIFE",
    "Driver",
    "EmptySelectionError",
    "SelectionError",
    "SelectionTooLargeError",
    "cancel",
    "carry_out",
    "driver_of",
    "expire_drafts",
    "hand_over",
    "left_alone",
    "prepare",
    "proceed",
    "retry",
    "run",
    "start",
    "undo",
    "undoable",
    "waiting_updates",
]
