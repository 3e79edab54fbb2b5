"""The items of an update page by page, failures first, by key: no page skips over earlier rows."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..models import BulkUpdate, BulkUpdateItem
from .sight import Sight

State = BulkUpdateItem.State
FAILURES_FIRST = (
    State.FAILED,
    State.UNKNOWN,
    State.RUNNING,
    State.WAITING,
    State.CHANGED,
    State.UNCHANGED,
    State.CANCELLED,
)
AFTER = "after"
"""The parameter that says behind which item a page begins, such as ``failed-17``."""
_PLACE = re.compile(r"([a-z]+)-([0-9]{1,18})", re.ASCII)


class ItemPage(NamedTuple):
    """One page of the items that a person may see."""

    items: list[BulkUpdateItem]
    after: str
    """Where it begins; ``""``: at the first item."""
    next: str
    """Where the next one begins; ``""``: there is none."""


def item_page(
    bulk_update: BulkUpdate, counts: dict[str, int], sight: Sight, *, after: str, size: int
) -> ItemPage:
    """The items behind a place: by index, one state after the other."""
    found = _PLACE.fullmatch(after)
    begin, behind = (found[1], int(found[2])) if found else ("", 0)
    states = [str(state) for state in FAILURES_FIRST]
    if begin in states:
        states = states[states.index(begin) :]
    else:
        after = ""
    items: list[BulkUpdateItem] = []
    for state in states:
        if counts[state] and len(items) <= size:
            of_state = sight.items(bulk_update.items.filter(state=state)).order_by("pk")
            if state == begin:
                of_state = of_state.filter(pk__gt=behind)
            items += of_state[: size + 1 - len(items)]
    has_more, items = len(items) > size, items[:size]
    return ItemPage(items, after, f"{items[-1].state}-{items[-1].pk}" if has_more else "")
