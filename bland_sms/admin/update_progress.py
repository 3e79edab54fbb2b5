"""How far an update is and which process carries it out, in numbers and in words."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from .. import dispatching
from ..models import BulkUpdate, BulkUpdateItem
from .confirmation import duration_words
from .formatting import Unlogged, clock, one_stop
from .lately import pace
from .sight import Sight, hidden_items_words
from .wording import counts_words

State = BulkUpdateItem.State
Status = BulkUpdate.Status


def progress_data(
    bulk_update: BulkUpdate, counts: dict[str, int], sight: Sight, *, may_drive: bool
) -> dict[str, Any]:
    """What the page of an update polls.

    Args:
        counts: Those that ``sight`` shows.
        may_drive: Whether the reader may ask Bland for this at all.
    """
    total = sum(counts.values())
    left = counts[State.WAITING] + counts[State.RUNNING]
    is_open = bulk_update.status in Status.OPEN or bulk_update.trying_again_at is not None
    is_ours = is_open and bulk_update.dispatched_at is None
    drive = is_ours and may_drive and sight.may_drive(bulk_update)
    words = counts_words(counts)
    abandoned = is_abandoned(bulk_update)
    note = _note(bulk_update, sight=sight, drive=drive, is_open=is_open, abandoned=abandoned)
    told_by_cause = (counts[one] for one in (State.FAILED, State.UNKNOWN, State.CANCELLED))
    seconds_each = None
    if bulk_update.status in Status.OPEN and 0 < left < total and not abandoned:
        is_large = bulk_update.live_counts is not None
        seconds_each = bulk_update.live_seconds_each if is_large else pace(bulk_update, counts)
    if seconds_each is not None:
        words = f"{words} · " + _("%s left") % duration_words(left * seconds_each)
    hidden = sight.hidden(bulk_update, counts)
    if hidden:
        words = f"{words} {hidden_items_words(hidden)}".strip()
    return {
        "status": bulk_update.status,
        "total": total,
        "counts": counts,
        "hidden": hidden,
        "finished": left == 0,
        "done": total - left,
        "open": is_open,
        "words": words,
        "drive": drive,
        "note": note,
        # The rows and causes are rendered anew where this changes.
        "state": "|".join(map(str, (bulk_update.status, is_open, note, *told_by_cause))),
        "wait_seconds": _wait_seconds(bulk_update) if is_open else 0,
    }


def _wait_seconds(bulk_update: BulkUpdate) -> float:
    """Seconds until the next item is due; 0 where one is."""
    due = dispatching.due_at(bulk_update)
    return 0 if due is None else max(0.0, (due - timezone.now()).total_seconds())


def _note(
    bulk_update: BulkUpdate, *, sight: Sight, drive: bool, is_open: bool, abandoned: bool
) -> str:
    """Which process carries it out, or why none does."""
    again_at = bulk_update.trying_again_at
    if again_at is not None:
        since = bulk_update.outage_since or again_at
        if bulk_update.stop_params.get("cause") == "rate_limited":
            words = _("Bland limits how often it may be asked; trying again at %(again)s.")
            return one_stop(words % {"again": clock(again_at)})
        words = _("Bland does not answer since %(since)s; trying again at %(again)s.")
        return one_stop(words % {"since": clock(since), "again": clock(again_at)})
    if bulk_update.status == Status.STOPPED:
        return sight.failure(bulk_update.stop).advice
    if not is_open:
        return ""
    if abandoned:
        stopped_at = dispatching.stopped_at(bulk_update)
        if stopped_at is not None:
            return one_stop(_("The worker stopped at %s.") % clock(stopped_at))
        return _("A worker was asked to do this, and none has begun for two minutes.")
    if bulk_update.dispatched_at is not None and not bulk_update.has_live_lease:
        return _("Waiting for a worker since %s: you may close this page.") % clock(
            bulk_update.dispatched_at
        )
    if drive:
        return _(
            "Runs while this page is open: there is no background worker. Close it, and it "
            "pauses; open it again to continue."
        )
    if dispatching.is_paused(bulk_update):
        return _("Update %(number)d is paused") % {"number": bulk_update.pk} + "."
    return _("A worker carries this out: you may close this page.")


def is_abandoned(bulk_update: BulkUpdate) -> bool:
    """Whether a worker was asked for and none has begun for a while."""
    return (
        bulk_update.status in Status.OPEN
        and bulk_update.dispatched_at is not None
        and dispatching.driver_of(bulk_update) == "none"
    )


def shown_items(
    items: list[BulkUpdateItem], sight: Sight
) -> list[tuple[BulkUpdateItem, Unlogged, Unlogged]]:
    """Items with their customer's number, and why or until when."""
    numbers = sight.numbers(items)
    return [
        (
            item,
            Unlogged(numbers.get(item.conversation_id) or _("no number")),
            Unlogged(_cause(item, sight)),
        )
        for item in items
    ]


def _cause(item: BulkUpdateItem, sight: Sight) -> str:
    if item.state == State.WAITING and item.not_before is not None:
        when = date_format(timezone.localtime(item.not_before), "DATETIME_FORMAT")
        return one_stop(_("Bland asked us to come back at %s.") % when)
    if item.state in (State.FAILED, State.UNKNOWN, State.CANCELLED):
        return sight.failure(item.failure).advice
    return ""
