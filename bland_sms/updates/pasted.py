"""Drafts that are made from a pasted list, and what their owner picks where a line is ambiguous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..conf import get_settings
from ..database import patient, using, write_transaction
from ..models import BulkUpdate, PastedLine
from ..pasting import Line, Match, candidate_match, match
from ..visible import Visible
from .ledger import SelectionTooLargeError, add_items, prepare

Status = BulkUpdate.Status
State = PastedLine.State


def prepare_pasted(
    lines: Sequence[Line],
    is_active: bool,
    requested_by: Any = None,
    reason: str = "",
    source: str = BulkUpdate.Source.ADMIN,
    *,
    selection: str = "",
    visible: Visible = None,
) -> BulkUpdate:
    """Find the customers of a list, and draft an update of their conversations.

    Args:
        visible: The conversations that may be found. ``None``: all of them.

    Raises:
        SelectionTooLargeError: nothing is kept.
    """
    found = match(lines, is_active, visible)
    return prepare(
        [conversation_id for one in found for conversation_id in one.ids],
        is_active,
        requested_by=requested_by,
        reason=reason,
        source=source,
        selection=selection,
        pasted=[_row(one) for one in found],
    )


def _row(found: Match) -> PastedLine:
    return PastedLine(
        number=found.line.number,
        text=found.line.text,
        state=found.state,
        code=found.code,
        same_as=found.same_as,
        conversation_id=found.conversation_id,
        conversations=len(found.ids),
        candidates=found.candidates,
    )


@patient
def pick(line: PastedLine, choice: int, *, visible: Visible = None) -> bool:
    """Decide which customer an ambiguous line of a draft means, and add their conversations.

    Args:
        choice: The place among the line's candidates.

    Returns:
        False where there is nothing to decide any more, or no such candidate.

    Raises:
        SelectionTooLargeError: nothing is changed.
    """
    if not 0 <= choice < len(line.candidates):
        return False
    draft, limit = line.bulk_update, get_settings().bulk_limit
    conversation_id, ids = candidate_match(line.candidates[choice], draft.is_active, visible)
    if conversation_id is None:
        return False
    alias = using(BulkUpdate)
    with write_transaction(BulkUpdate):
        # The draft's row is locked first: it is not started while something is added.
        drafts = BulkUpdate.objects.using(alias).filter(pk=draft.pk, status=Status.DRAFT)
        if not drafts.update(status=Status.DRAFT):
            return False
        picked = PastedLine.objects.using(alias).filter(pk=line.pk, state=State.AMBIGUOUS)
        state = State.FOUND if ids else State.ALREADY
        values = {"conversation_id": conversation_id, "conversations": len(ids), "candidates": []}
        if not picked.update(state=state, **values):
            return False
        known = set(
            draft.items.filter(conversation_id__in=ids).values_list("conversation_id", flat=True)
        )
        if draft.items.count() + len(ids) - len(known) > limit:
            raise SelectionTooLargeError(limit)
        add_items(draft, [pk for pk in ids if pk not in known], alias)
    return True
