"""Writes the events that follow from what Bland told, a page at a time."""

from __future__ import annotations

from datetime import date
from typing import Any

from ..database import Among, batches
from ..models import ConversationEvent, UncountedDay
from ..models.event import day_of
from .history import Event, History, microseconds, moment_of
from .inserting import insert
from .merge import Merge


class Happenings:
    """What a page changes of the events: in a fixed number of statements, most often two."""

    def __init__(self) -> None:
        self._new: list[tuple[str, Event]] = []
        self._gone: set[tuple[str, str, int]] = set()
        self._days: set[date] = set()

    def add(self, merge: Merge) -> None:
        """Compare the events that follow now with those that were written before."""
        self._days.update(merge.days())
        if not merge.history.changed:
            return
        pk, row = merge.row.pk, merge.row
        before = {} if merge.is_new else History(row.event_history).events()
        after = merge.history.events()
        for key, event in after.items():
            if before.get(key) != event:
                self._new.append((pk, event))
        for key, event in before.items():
            if after.get(key) != event:
                self._gone.add((pk, *key))
        if "agent_number" in merge.changed:
            self._days.update(day_of(moment_of(event.at)) for event in after.values())
        merge.history.forget_oldest()
        row.event_history = merge.history.stored()

    def write(self, alias: str) -> None:
        """In the transaction that writes the rows, and after them."""
        if self._gone:
            self._delete(alias)
        # A row inserted by hand is no reason to lose the page.
        new = [_columns(pk, event) for pk, event in self._new]
        insert(ConversationEvent, new, alias, unless_there=True)
        moments = [event.at for _, event in self._new] + [at for *_, at in self._gone]
        self._days.update(day_of(moment_of(at)) for at in moments)
        insert(UncountedDay, [{"day": day} for day in sorted(self._days)], alias)

    def _delete(self, alias: str) -> None:
        """Those that an answer that came late has moved, or explained in another way."""
        events = ConversationEvent.objects.using(alias)
        ids = sorted({pk for pk, *_ in self._gone})
        found = events.filter(Among("conversation_id", ids)).values_list(
            "pk", "conversation", "kind", "at"
        )
        gone = [
            event_pk
            for event_pk, pk, kind, at in found
            if (pk, kind, microseconds(at)) in self._gone
        ]
        for some in batches(gone):
            events.filter(Among("pk", some)).delete()


def _columns(pk: str, event: Event) -> dict[str, Any]:
    return {
        "conversation_id": pk,
        "kind": str(event.kind),
        "at": moment_of(event.at),
        "observed_at": moment_of(event.first[0]),
        "source": event.first[1],
        "from_status": event.from_status,
        "to_status": event.to_status,
    }
