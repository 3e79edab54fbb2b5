"""From an object of Bland's to our columns: Bland's names, old and new, and what has no column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from .values import ABSENT, Absent, read_code, read_text

Readers = Mapping[str, tuple[tuple[str, ...], Callable[[object, datetime], Any]]]
"""Column -> Bland's names for it, the one in force first, and how it is read."""


def text_of(max_length: int) -> Callable[[object, datetime], str | Absent]:
    return lambda value, latest: read_text(value, max_length)


def code_of(max_length: int) -> Callable[[object, datetime], str | Absent]:
    return lambda value, latest: read_code(value, max_length)


def read_columns(
    data: Mapping[str, Any], readers: Readers, latest: datetime
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns that were told, and whatever else Bland sent, unusable values included.

    A null or an empty text under one name says nothing where another name tells a value.
    """
    told: dict[str, Any] = {}
    unread = dict(data)
    for column, (names, read) in readers.items():
        present = [name for name in names if name in unread]
        if not present:
            continue
        if len(present) == 1:  # as nearly always
            value = unread.pop(present[0])
            if (one := read(value, latest)) is not ABSENT:
                told[column] = one
            elif value is not None:
                unread[present[0]] = value
            continue
        is_null, is_empty = True, False
        for name in present:
            value = unread[name]
            if value is None:
                del unread[name]
                continue
            is_null = False
            value = read(value, latest)
            if value == "":
                is_empty = True
                del unread[name]
            elif value is not ABSENT and column not in told:
                told[column] = value
                del unread[name]
        if is_empty:
            told.setdefault(column, "")
        if is_null and (empty := read(None, latest)) is not ABSENT:
            told[column] = empty
    return told, unread
