"""Reads who is to be stopped: a list of customers, or a table with a column ``customer``, such as
the CSV that the page of orders exports."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from ..pasting import MAX_LINES, Line, ListError, read_file, read_text
from ..pasting.spreadsheets import Row, rows_of_file
from ..reasons import Failure

CUSTOMER = "customer"
OVER = ("lifted", "expired")
"""Of the column ``state``: such lines make no order."""
NO = ("false", "no", "0")
_ESCAPED = re.compile(r"\A'(?=[=+\-@])")
"""What our CSV puts before a text that a spreadsheet would take for a formula."""


@dataclass(frozen=True)
class Wish:
    """An order that is asked for; what is ``None`` was not said."""

    customer: str = field(repr=False)
    number: int = 0
    """Of its line."""
    reason: str | None = None
    agent_number: str | None = None
    until: datetime | None = None
    says_until: bool = False
    """``until`` was said: ``None`` is for good."""
    spare_handed_off: bool | None = None
    failure: Failure = field(default_factory=Failure)
    """Why its line makes no order."""


def read_customers(source: str | BinaryIO) -> list[Wish]:
    """Read a pasted list or a file.

    A table whose first row names a column ``customer`` may have the columns ``reason``,
    ``agent_number``, ``until``, ``spare_handed_off`` and ``state`` as well.

    Raises:
        ListError: it is empty, too long, or no list.
    """
    if isinstance(source, str):
        if not is_table(source):
            return [_from_line(line) for line in read_text(source)]
        source = io.BytesIO(source.lstrip().encode())
    rows = [(number, cells) for number, cells in rows_of_file(source) if any(map(str.strip, cells))]
    names = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if CUSTOMER not in names:
        source.seek(0)
        return [_from_line(line) for line in read_file(source)]
    if len(rows) > MAX_LINES + 1:
        raise ListError("list_too_long", number=MAX_LINES)
    if len(rows) == 1:
        raise ListError("list_empty")
    return [wish for row in rows[1:] if (wish := _from_row(names, row)) is not None]


def is_table(text: str) -> bool:
    """Whether a text is a table that says in its first row what its columns are."""
    return CUSTOMER in _heading(text.lstrip().partition("\n")[0])


def read_until(text: str) -> datetime:
    """A time from a date (the end of that day), a time, or a number of days such as ``30d``.

    Raises:
        ValueError: it is none of them.
    """
    if re.fullmatch(r"\d{1,4}d", text, re.ASCII):
        return timezone.now() + timedelta(days=int(text[:-1]))
    moment, day = parse_datetime(text), parse_date(text)
    if day is not None:
        moment = datetime.combine(day + timedelta(days=1), datetime.min.time())  # the whole day
    if moment is None:
        raise ValueError(text)
    return moment if moment.tzinfo else timezone.make_aware(moment)


def _heading(line: str) -> list[str]:
    return [cell.strip("\ufeff\"' \r").lower() for cell in re.split(r"[,;\t|]", line)]


def _from_line(line: Line) -> Wish:
    return Wish(line.text, line.number, failure=Failure(line.code))


def _from_row(names: Sequence[str], row: Row) -> Wish | None:
    """``None``: of an order that is over."""
    number, cells = row
    told = {name: _ESCAPED.sub("", cell.strip()) for name, cell in zip(names, cells, strict=False)}
    if told.get("state", "").lower() in OVER:
        return None
    until, failure = None, Failure()
    if told.get("until"):
        try:
            until = read_until(told["until"])
        except (ValueError, OverflowError):
            failure = Failure("until_unreadable")
    spare = told.get("spare_handed_off")
    return Wish(
        told.get(CUSTOMER, ""),
        number,
        reason=told.get("reason"),
        agent_number=told.get("agent_number"),
        until=until,
        says_until="until" in told,
        spare_handed_off=spare.lower() not in NO if spare else None,
        failure=failure,
    )
