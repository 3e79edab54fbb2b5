"""What Bland told of a conversation's past, and the events that follow from it.

A row keeps the newest state only, so an answer that comes late would leave another trail of changes
than one that comes in time. The history therefore remembers each *version* of the conversation
(what had one ``updated_at``) and each time that Bland gave (``human_handoff_at`` and so on). Both
only grow, whatever the order of the answers, and the events are computed from all of it.

A version remembers whether it was active, told by the answer that law 1 believes; who told the
version first; and what any answer said of it. Time is in microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..models import ConversationEvent
from ..models.conversation import Status
from ..payloads import EPOCH

Kind = ConversationEvent.Kind
First = tuple[int, int]
"""Who told it first: when that request was sent, and the kind of answer."""

MAX_VERSIONS = 50
"""The newest that are remembered. What came before them is settled: its events stay as they are."""
MAX_TIMES = 50
CLOCKS_DIFFER = 1_000_000
"""Bland writes ``timed_out_at`` and ``updated_at`` in one go, and not by one clock."""
TOLD_NO_HANDOFF, TOLD_END, TOLD_NO_END = 1, 2, 4
_TIMES = (Kind.HANDED_OFF, Kind.TIMED_OUT, Kind.ASKED_TO_STOP)
"""Events whose own times Bland tells."""
_AFTER: dict[str, str] = {
    Kind.STARTED: Status.ACTIVE.value,
    Kind.REACTIVATED: Status.ACTIVE.value,
    Kind.HANDED_OFF: Status.HANDED_OFF.value,
    Kind.TAKEN_BACK: Status.ACTIVE.value,
    Kind.TIMED_OUT: Status.TIMED_OUT.value,
    Kind.COMPLETED: Status.COMPLETED.value,
    Kind.DEACTIVATED: Status.INACTIVE.value,
}
_ORDER: dict[str, int] = {kind: place for place, kind in enumerate(Kind)}


_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def moment_of(number: int) -> datetime:
    return EPOCH + timedelta(microseconds=number)


class Event(NamedTuple):
    """One event of a conversation."""

    kind: str
    at: int
    first: First
    from_status: str
    to_status: str


@dataclass(slots=True)
class Version:
    """What Bland told of the conversation with one ``updated_at``."""

    updated_at: int
    is_active: bool | None
    """``None``: no answer told it."""
    age: First
    """Of ``is_active``: when the request was sent whose answer is believed, and its kind."""
    first: First
    told: int = 0
    """``TOLD_NO_HANDOFF`` and so on: said by any answer."""


class History:
    """The history of one conversation; ``stored`` is the column, ``{}``: nothing is known."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.is_new = not stored
        self.changed = False
        self.started: tuple[int, First] | None = None
        if "started" in stored:
            at, observed_at, source = stored["started"]
            self.started = (at, (observed_at, source))
        self.times: dict[str, dict[int, First]] = {
            kind: {at: (observed_at, source) for at, observed_at, source in stored.get(kind, ())}
            for kind in _TIMES
        }
        self.versions: dict[int, Version] = {
            updated_at: Version(
                updated_at,
                None if is_active is None else bool(is_active),
                (age_at, age_from),
                (first_at, first_from),
                told,
            )
            for updated_at, is_active, age_at, age_from, first_at, first_from, told in stored.get(
                "versions", ()
            )
        }
        self.settled: str | None = stored.get("settled")
        """The status before the oldest remembered version; ``None``: nothing was forgotten."""
        self._current = 0

    def stored(self) -> dict[str, Any]:
        """The column's value. The age of the row's own version stands in the row alone."""
        value: dict[str, Any] = {
            "versions": [
                [
                    version.updated_at,
                    None if version.is_active is None else int(version.is_active),
                    *((0, 0) if version.updated_at == self._current else version.age),
                    *version.first,
                    version.told,
                ]
                for version in self._in_order()
            ]
        }
        if self.started is not None:
            value["started"] = [self.started[0], *self.started[1]]
        for kind, times in self.times.items():
            if times:
                value[kind] = [[at, *first] for at, first in sorted(times.items())]
        if self.settled is not None:
            value["settled"] = self.settled
        return value

    # --- what is told ---

    def tell_start(self, at: datetime, first: First) -> None:
        """Bland said when it was created. The earliest such time is believed."""
        told = (microseconds(at), first)
        if self.started is None or told < self.started:
            self.started = told
            self.changed = True

    def tell(self, kind: str, at: datetime, first: First) -> None:
        """Bland gave the time of a hand-off, a time-out, or a request to stop.

        Safe to repeat, and in any order.
        """
        times, moment = self.times[kind], microseconds(at)
        if moment not in times or first < times[moment]:
            times[moment] = first
            self.changed = True

    def tell_version(
        self, updated_at: datetime, is_active: bool | None, first: First, told: int = 0
    ) -> None:
        """An answer told the state that the conversation had at ``updated_at``."""
        moment = microseconds(updated_at)
        if moment <= self._forgotten_until():
            return
        version = self.versions.get(moment)
        if version is None:
            age = (0, 0) if is_active is None else first
            self.versions[moment] = Version(moment, is_active, age, first, told)
            self.changed = True
            return
        if is_active is not None and (
            version.is_active is None or (first, is_active) > (version.age, version.is_active)
        ):
            # The row itself has the age of its own version: see ``current``.
            self.changed |= version.is_active is not is_active or moment != self._current
            version.is_active, version.age = is_active, first
        if first < version.first or told & ~version.told:
            version.first = min(version.first, first)
            version.told |= told
            self.changed = True

    def tell_facts(self, facts: dict[str, Any], first: First) -> int:
        """Times that an answer gives; returns what else it says of its version."""
        told = 0
        if facts.get("created_at"):
            self.tell_start(facts["created_at"], first)
        if facts.get("timed_out_at"):
            self.tell(Kind.TIMED_OUT, facts["timed_out_at"], first)
        if facts.get("human_handoff_at"):
            self.tell(Kind.HANDED_OFF, facts["human_handoff_at"], first)
        elif "human_handoff_at" in facts:
            told |= TOLD_NO_HANDOFF
        if "ended_by_end_call_node" in facts:
            told |= TOLD_END if facts["ended_by_end_call_node"] else TOLD_NO_END
        return told

    def current(self, updated_at: datetime, is_active: bool, age: First) -> None:
        """What the row holds: of its own version it knows the state and its age best."""
        self._current = microseconds(updated_at)
        version = self.versions.get(self._current)
        if version is not None and version.is_active is not None:
            self.changed |= version.is_active is not is_active
            version.is_active, version.age = is_active, age

    # --- what follows ---

    def events(self) -> dict[tuple[str, int], Event]:
        """The events after whatever is settled, by kind and time."""
        found = sorted((at, _ORDER[kind], kind, first) for kind, at, first in self._found())
        status = self.settled or ""
        events: dict[tuple[str, int], Event] = {}
        for at, _, kind, first in found:
            after = _AFTER.get(kind, status or Status.ACTIVE.value)
            events.setdefault((kind, at), Event(kind, at, first, status, after))
            status = after
        return events

    def forget_oldest(self) -> None:
        """Keep the newest versions and times only; called when the events are written."""
        for times in self.times.values():
            for at in sorted(times)[:-MAX_TIMES]:
                del times[at]
        if len(self.versions) <= MAX_VERSIONS:
            return
        surplus = self._in_order()[:-MAX_VERSIONS]
        # The oldest that stays tells the state from then on, and no event itself.
        oldest = self._in_order()[-MAX_VERSIONS].updated_at
        before = [event for event in self.events().values() if event.at <= oldest]
        self.settled = before[-1].to_status if before else self.settled or str(Status.ACTIVE)
        for version in surplus:
            del self.versions[version.updated_at]
            if version.told & TOLD_NO_HANDOFF:
                handed_off = self.times[Kind.HANDED_OFF]
                for at in [at for at in handed_off if at <= version.updated_at]:
                    del handed_off[at]

    def _in_order(self) -> list[Version]:
        return [self.versions[moment] for moment in sorted(self.versions)]

    def _forgotten_until(self) -> int:
        """Nothing is told of 1970, Bland's way of not telling a time, nor of what is settled."""
        return 0 if self.settled is None else min(self.versions)

    def _found(self) -> Iterator[tuple[str, int, First]]:
        settled = self._forgotten_until()
        if self.started is not None and self.settled is None:
            yield Kind.STARTED, self.started[0], self.started[1]
        for kind, times in self.times.items():
            for at, first in times.items():
                if at > settled:
                    yield kind, at, first
        yield from self._state_changes(settled)
        yield from self._taken_back(settled)

    def _state_changes(self, settled: int) -> Iterator[tuple[str, int, First]]:
        """Between versions. A conversation begins active, and a time-out ends that."""
        is_active, was_ended = True, False
        timeouts = [at for at in sorted(self.times[Kind.TIMED_OUT]) if at > settled]
        versions = self._in_order()
        for place, version in enumerate(versions):
            latest = version.updated_at + (-1 if version.is_active else CLOCKS_DIFFER)
            while timeouts and timeouts[0] <= latest:
                is_active = False
                del timeouts[0]
            if version.is_active is not None and version.updated_at > settled:
                if version.is_active and not is_active:
                    yield Kind.REACTIVATED, version.updated_at, version.first
                elif is_active and not version.is_active:
                    has_ended = not was_ended and self._has_ended(versions[place:])
                    kind = Kind.COMPLETED if has_ended else Kind.DEACTIVATED
                    yield kind, version.updated_at, version.first
            if version.is_active is not None:
                is_active = version.is_active
            if version.told & (TOLD_END | TOLD_NO_END):
                was_ended = bool(version.told & TOLD_END)

    @staticmethod
    def _has_ended(versions: list[Version]) -> bool:
        """Whether it was the agent that ended it: what is said first, while it is inactive."""
        for version in versions:
            if version.is_active:
                return False
            if version.told & (TOLD_END | TOLD_NO_END):
                return bool(version.told & TOLD_END)
        return False

    def _taken_back(self, settled: int) -> Iterator[tuple[str, int, First]]:
        """A hand-off ends with the first version that tells of none, if it still is active."""
        if not self.times[Kind.HANDED_OFF]:
            return
        versions = [version for version in self._in_order() if version.told & TOLD_NO_HANDOFF]
        for at in sorted(self.times[Kind.HANDED_OFF]):
            after = next((version for version in versions if version.updated_at >= at), None)
            if after is not None and after.is_active and after.updated_at > settled:
                yield Kind.TAKEN_BACK, after.updated_at, after.first
