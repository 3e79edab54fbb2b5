"""Which part of the account's rate each process has: decided without a clock or a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .rate import Known

LIVE_SECONDS = 3.0
"""A process that was not heard of for so long has no share any more: it died."""
LEAST_SHARE = 0.02
"""What a process has at once, before the others have heard of it."""
MOST = 0.5
ROOM_TO_GROW = 1.25
"""What a process keeps of what it used, where that was less than its share."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one process, from 0 to 1."""

    taken: float
    wanted: float
    """1: more than it can get."""
    answered: int
    """Requests of the last second that Bland answered."""
    at: float
    """Seconds by the clock of the database."""


def live(shares: Mapping[str, Share], now: float) -> dict[str, Share]:
    """Those that were heard of lately. A time ahead of now was written by a wrong clock."""
    return {name: one for name, one in shares.items() if abs(now - one.at) <= LIVE_SECONDS}


def fair(wanted: Mapping[str, float]) -> dict[str, float]:
    """Who wants little gets it, the others get the same each; what is left belongs to all."""
    parts: dict[str, float] = {}
    left, count = 1.0, len(wanted)
    for name, want in sorted(wanted.items(), key=lambda entry: entry[1]):
        parts[name] = min(want, left / (count - len(parts)))
        left -= parts[name]
    return {name: part + left / count for name, part in parts.items()}


def take(
    shares: Mapping[str, Share], name: str, ours: Share, *, is_pioneer: bool = False
) -> dict[str, Share]:
    """All live shares, after one process took its own again.

    It gives away at once what others want as well, and takes no more than they have left.

    Args:
        ours: What it has, wants and got answered, and the time.
        is_pioneer: Nobody knows the limit yet: who has most finds it for all, and keeps what it
            has meanwhile.
    """
    others = live(shares, ours.at)
    others.pop(name, None)
    part = fair({key: one.wanted for key, one in others.items()} | {name: ours.wanted})[name]
    left = 1.0 - sum(one.taken for one in others.values())
    if is_pioneer and ours.taken > MOST:
        part = max(part, left)
    taken = max(min(part, left), min(part, LEAST_SHARE))
    return {**others, name: replace(ours, taken=taken)}


def neediest(shares: Mapping[str, Share]) -> str:
    """The one who tries for all whether Bland allows more."""
    return min(shares, key=lambda name: (-shares[name].wanted, name))


@dataclass(frozen=True, slots=True)
class State:
    """The account, as all its processes see it."""

    known: Known | None = None
    """What was known last of its rate."""
    refusals: int = 0
    """How often a process lowered the rate."""
    shares: Mapping[str, Share] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> State:
        """What was stored; a fresh one where it cannot be read, as after a change of version."""
        try:
            known = Known(**data["known"]) if data["known"] else None
            shares = {name: Share(**one) for name, one in data["shares"].items()}
            return cls(known, int(data["refusals"]), shares)
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def without(self, name: str) -> State:
        """The same after a process gave its share back."""
        shares = {key: one for key, one in self.shares.items() if key != name}
        return State(self.known, self.refusals, shares)
