"""Push: the ledger of updates asked of Bland, and the one function that carries them out."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .decisions import (
        cancel,
        has_hidden,
        left_alone,
        proceed,
        retry,
        undo,
        undoable,
        undoing,
    )
    from .driver import run
    from .ledger import (
        COUNTED_EACH_TIME,
        DRAFT_LIFE,
        EmptySelectionError,
        SelectionError,
        SelectionTooLargeError,
        expire_drafts,
        leave_out_hidden,
        note_preview,
        prepare,
        start,
        waiting_updates,
    )
    from .pasted import pick, prepare_pasted

__getattr__ = on_demand(
    __name__,
    decisions="cancel has_hidden left_alone proceed retry undo undoable undoing",
    driver="run",
    ledger=(
        "COUNTED_EACH_TIME DRAFT_LIFE EmptySelectionError SelectionError "
        "SelectionTooLargeError expire_drafts leave_out_hidden note_preview prepare start "
        "waiting_updates"
    ),
    pasted="pick prepare_pasted",
)

__all__ = [
    "COUNTED_EACH_TIME",
    "DRAFT_LIFE",
    "EmptySelectionError",
    "SelectionError",
    "SelectionTooLargeError",
    "cancel",
    "expire_drafts",
    "has_hidden",
    "leave_out_hidden",
    "left_alone",
    "note_preview",
    "pick",
    "prepare",
    "prepare_pasted",
    "proceed",
    "retry",
    "run",
    "start",
    "undo",
    "undoable",
    "undoing",
    "waiting_updates",
]
