"""Decides what a run reads: everything or what changed, from the start or where one stopped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..models import SyncRun
from .walk import Range, SortBy, floor

Mode = SyncRun.Mode
OVERLAP = timedelta(minutes=10)
"""How far before the watermark a run begins: the clocks of Bland's servers may differ by so
much."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run reads."""

    mode: str
    ranges: tuple[Range, ...]
    watermark: datetime | None
    """By Bland's clock: every change before it is in the mirror when the run is finished.
    ``None``: not known yet, or never, where the run leaves a gap before it."""
    resumes: bool = False
    """It goes on where another run stopped."""


def mode_of(*, full: bool, since: datetime | None, watermark: datetime | None) -> str:
    """The first run is a full one."""
    return Mode.FULL if full or (since is None and watermark is None) else Mode.INCREMENTAL


def plan(
    *,
    mode: str,
    since: datetime | None,
    watermark: datetime | None,
    interrupted: SyncRun | None,
) -> Plan:
    """What a run of this mode reads.

    Args:
        since: By Bland's clock: what changed since then, instead of since the watermark.
        watermark: Of the last completed run.
        interrupted: The run before this one, where it stopped in the middle of such a walk.
    """
    if interrupted is not None:
        ranges = tuple(Range.from_json(one, sort_by_of(mode)) for one in interrupted.cursor)
        return Plan(mode=mode, ranges=ranges, watermark=interrupted.watermark, resumes=True)
    if mode == Mode.FULL:
        return Plan(mode=mode, ranges=(Range("created_at"),), watermark=None)
    begin = since
    if begin is None:
        assert watermark is not None, "else this would be a full run"
        begin = watermark - OVERLAP
    is_gapless = watermark is not None and (since is None or since <= watermark)
    return Plan(
        mode=mode,
        ranges=(Range("updated_at", begin=floor(begin)),),
        watermark=watermark if is_gapless else None,
    )


def sort_by_of(mode: str) -> SortBy:
    """Changes are read by their time, everything by a time that never changes."""
    return "created_at" if mode == Mode.FULL else "updated_at"


def cursor_of(
    mode: str, ranges: Iterable[Range], watermark: datetime | None
) -> list[list[str | None]]:
    """What is left to read, for the run after this one. Where only gaps are left, what changes
    from now on as well: a gap must not hide it."""
    left = [range_ for range_ in ranges if not range_.is_done]
    gaps = [range_ for range_ in left if range_.is_gap]
    if not gaps or any(range_.sort_by == "updated_at" and range_.until is None for range_ in left):
        return [range_.to_json() for range_ in left]
    changes = [r for r in ranges if r.sort_by == "updated_at" and r.until is None]
    if changes:
        left.append(Range("updated_at", begin=changes[0].start))
    elif len(gaps) == len(left) and watermark is not None:
        left.append(Range("updated_at", begin=floor(watermark - OVERLAP)))
    return [range_.to_json() for range_ in left]
