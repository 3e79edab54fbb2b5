"""What other updates tell about one that is to be started: who else is at it, how long it takes."""

from __future__ import annotations

from statistics import median

from django.db.models import Exists, OuterRef
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import BulkUpdate, BulkUpdateItem
from .wording import COUNT_CAP, number_words

Status = BulkUpdate.Status
MOST_NAMED = 10
MOST_LOOKED_AT = 100
"""Updates that are still at work, the oldest: more of them are not looked through."""
LOOKED_AT = 20
"""The last updates whose speed is looked at."""
FEWEST_ITEMS = 25
"""A smaller update says little about the speed."""


def overlaps(draft: BulkUpdate) -> list[str]:
    """Sentences about open updates that have some of the same conversations."""
    open_items = BulkUpdateItem.objects.filter(state__in=BulkUpdateItem.State.OPEN)
    unfinished = BulkUpdate.objects.filter(
        Exists(open_items.filter(bulk_update=OuterRef("pk"))), status__in=Status.UNFINISHED
    ).exclude(pk=draft.pk)
    chosen = draft.items.values("conversation_id")
    told: list[str] = []
    columns = ("pk", "is_active", "requested_by_name")
    for other in unfinished.only(*columns).order_by("pk")[:MOST_LOOKED_AT]:
        # By its id: by their state alone PostgreSQL reads the draft's own items, which all wait.
        same = open_items.filter(bulk_update=other.pk, conversation_id__in=chosen)
        number = same.order_by()[: COUNT_CAP + 1].count()
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
        told.append(text % {"update": other.pk, "who": who, "number": words})
        if len(told) == MOST_NAMED:
            break
    return told


def seconds_each() -> float | None:
    """How long each conversation of the last larger updates took; ``None``: there was none."""
    last = BulkUpdate.objects.filter(
        status=Status.FINISHED, started_at__isnull=False, finished_at__isnull=False
    ).order_by("-pk")
    found = []
    for started_at, finished_at, counts in last.values_list(
        "started_at", "finished_at", "counts_at_rest"
    )[:LOOKED_AT]:
        number = sum((counts or {}).values())
        if number >= FEWEST_ITEMS and started_at is not None and finished_at is not None:
            found.append(max(0.0, (finished_at - started_at).total_seconds()) / number)
    return median(found) if found else None
