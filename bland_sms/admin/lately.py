"""What other updates tell about one that is to be started: who else is at it, how long it takes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from django.db.models import Exists, OuterRef
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import BulkUpdate, BulkUpdateItem
from ..quantities import number_words
from .wording import COUNT_CAP

Status = BulkUpdate.Status
MOST_NAMED = 10
MOST_LOOKED_AT = 100
"""Updates that are still at work, the oldest: more of them are not looked through."""
SPARE = 2000
"""Conversations of a draft that are looked at first, beyond those that are counted."""
LOOKED_AT = 20
"""The last updates whose speed is looked at."""
FEWEST_ITEMS = 25
"""A smaller update says little about the speed."""
MEASURED = 3
"""Of these, the last ones that were large enough."""
SAMPLE = 1000
"""Answers of an update that are looked at: they are written by up to 400 at once."""
LONGEST_GAP_SECONDS = 10.0
"""From one answer to the next, while anything is done."""
_ANSWERED = (BulkUpdateItem.State.CHANGED, BulkUpdateItem.State.UNCHANGED)


class Overlap(NamedTuple):
    """An open update that has some of the same conversations, in a sentence."""

    text: str
    is_opposite: bool
    """It would change them to the other value."""


def overlaps(draft: BulkUpdate) -> list[Overlap]:
    """Open updates that have some of the same conversations."""
    open_items = BulkUpdateItem.objects.filter(state__in=BulkUpdateItem.State.OPEN)
    unfinished = BulkUpdate.objects.filter(
        Exists(open_items.filter(bulk_update=OuterRef("pk"))), status__in=Status.UNFINISHED
    ).exclude(pk=draft.pk)
    chosen = draft.items.values("conversation_id")
    # Of two large ones the conversations with the first ids are mostly enough to tell that there
    # are more than are counted: to look through all of them takes as long as they are many.
    ids = draft.items.order_by("conversation_id").values_list("conversation_id", flat=True)
    first = ids[COUNT_CAP + SPARE : COUNT_CAP + SPARE + 1].first()
    told: list[Overlap] = []
    columns = ("pk", "is_active", "requested_by_name", "live_counts")
    for other in unfinished.only(*columns).order_by("pk")[:MOST_LOOKED_AT]:
        # By its id: by their state alone PostgreSQL reads the draft's own items, which all wait.
        items = open_items.filter(bulk_update=other.pk).order_by()
        number = 0
        if first is not None and other.live_counts is not None:
            same = chosen.filter(conversation_id__lt=first)
            near = items.filter(conversation_id__lt=first, conversation_id__in=same)
            number = near[: COUNT_CAP + 1].count()
        if number <= COUNT_CAP:
            number = items.filter(conversation_id__in=chosen)[: COUNT_CAP + 1].count()
        if not number:
            continue
        if other.is_active == draft.is_active:
            text = ngettext(
                "Update %(update)d by %(who)s does the same for %(number)s of them, which is left "
                "out here.",
                "Update %(update)d by %(who)s does the same for %(number)s of them, which are left "
                "out here.",
                number,
            )
        else:
            text = ngettext(
                "Update %(update)d by %(who)s does the opposite for %(number)s of them, which is "
                "left out there once this one is started.",
                "Update %(update)d by %(who)s does the opposite for %(number)s of them, which are "
                "left out there once this one is started.",
                number,
            )
        words = number_words(min(number, COUNT_CAP), is_capped=number > COUNT_CAP)
        who = other.requested_by_name or _("an operator")
        text %= {"update": other.pk, "who": who, "number": words}
        told.append(Overlap(text, other.is_active != draft.is_active))
        if len(told) == MOST_NAMED:
            break
    return told


def seconds_each() -> float | None:
    """How long each conversation of the last larger updates took; ``None``: it is not known."""
    last = BulkUpdate.objects.filter(status=Status.FINISHED).order_by("-pk")[:LOOKED_AT]
    larger = [one for one in last if sum((one.counts_at_rest or {}).values()) >= FEWEST_ITEMS]
    found = [pace(one, one.counts_at_rest or {}) for one in larger[:MEASURED]]
    known = [seconds for seconds in found if seconds is not None]
    return median(known) if known else None


def pace(bulk_update: BulkUpdate, counts: dict[str, int]) -> float | None:
    """How long each conversation of an update took lately; ``None``: it is not known yet.

    Measured from one answer to the next, of the same update. A longer time without any is a pause:
    nobody had its page open, no worker came, or Bland did not answer. None of that is work.
    """
    state = max(_ANSWERED, key=lambda one: counts.get(one, 0))
    items = bulk_update.items.filter(state=state).order_by("-pk")
    moments = Counter(items.values_list("finished_at", flat=True)[:SAMPLE])
    seconds, number = 0.0, 0
    for before, after in pairwise(sorted(moment for moment in moments if moment is not None)):
        between = (after - before).total_seconds()
        if between <= LONGEST_GAP_SECONDS:
            seconds += between
            number += moments[after]
    return seconds / number if number else None
