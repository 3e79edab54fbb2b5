"""CSV that a spreadsheet shows and does not execute."""

from __future__ import annotations

import csv
import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest, StreamingHttpResponse

from .. import database
from ..models import Conversation

logger = logging.getLogger("bland_sms.downloads")

_PHONE_NUMBER = re.compile(r"\+?[0-9]{1,15}", re.ASCII)
_INVISIBLE = r"\s\"'\0-\x1f\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_SIGN = r"=+\-@＝＋－＠﹦﹢﹣﹫\u2212"
_FORMULA = re.compile(
    rf"(\A|[;|\t\v\f\r\n\x1c-\x1e\x85\u2028\u2029])([{_INVISIBLE}]*)(?=[{_SIGN}])"
)
"""Where a formula could begin: a cell, or what follows another separator or a line break in it.
What programs take for white space, or leave out, does not count."""
_CONTROL_STARTS = ("\t", "\r", "\0")


def safe_cell(value: Any) -> str:
    """Text that no spreadsheet takes for a formula; phone numbers stay as they are.

    Which separator a spreadsheet splits at depends on the reader's settings: where that is ``;``,
    the cell ``hello;=1+1`` would be two, and the second a formula. So an apostrophe is put before
    whatever could begin a formula in the middle of a cell, too.

    Source: CWE-1236, OWASP ASVS 1.2.10.
    """
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    if _PHONE_NUMBER.fullmatch(text):
        return text
    text = _FORMULA.sub(r"\1\2'", text)
    return f"'{text}" if text.startswith(_CONTROL_STARTS) else text


class _Echo:
    """Where csv writes to: it hands each line on."""

    def write(self, line: str) -> str:
        return line


def note_download(request: HttpRequest, filename: str, number: int) -> None:
    """Leave a trace of who took how much out of the site, in the log and without contents."""
    logger.info("download: user %s, %s, rows: %d", request.user.pk, filename, number)


def csv_response(
    request: HttpRequest, filename: str, header: Iterable[str], rows: Iterable[Iterable[Any]]
) -> StreamingHttpResponse:
    """A download, written row by row: memory does not grow with it."""
    writer = csv.writer(_Echo())

    def lines() -> Iterator[str]:
        number = 0
        try:
            yield "\ufeff" + writer.writerow(list(header))  # Excel takes it for UTF-8 by this mark
            for row in rows:
                yield writer.writerow([safe_cell(value) for value in row])
                number += 1
        finally:  # also where the reader has gone away in the middle
            note_download(request, filename, number)

    return StreamingHttpResponse(
        lines(),
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{filename}"',
            "Cache-Control": "no-store",
        },
    )


def by_activity(rows: QuerySet[Conversation], columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Columns of all rows, oldest activity first, read in portions; each row once.

    In the order of the list's indexes: by primary key each portion of a filtered list would walk
    over all that the filter leaves out, or sort all that it keeps. A row that changes meanwhile
    moves on, ahead of the reader, so it is not missed; that it comes twice is noticed by what was
    read already, kept on disk where it is much.

    Args:
        columns: Among them ``id`` and ``last_activity_at``.
    """
    at_place, id_place = columns.index("last_activity_at"), columns.index("id")
    rows = rows.order_by("last_activity_at", "pk")
    # One user at a time, though a server may read a download's parts in several threads.
    with closing(sqlite3.connect("", check_same_thread=False)) as seen:
        seen.execute("CREATE TABLE seen (id PRIMARY KEY) WITHOUT ROWID")
        add = "INSERT OR IGNORE INTO seen VALUES (?)"
        portion = list(rows.values_list(*columns)[: database.ROWS_AT_ONCE])
        while portion:
            for row in portion:
                if seen.execute(add, (row[id_place],)).rowcount:
                    yield row
            if len(portion) < database.ROWS_AT_ONCE:
                return
            at, pk = portion[-1][at_place], portion[-1][id_place]
            behind = Q(last_activity_at__gt=at) | Q(pk__gt=pk)
            later = rows.filter(
                behind, last_activity_at__gte=at
            )  # the latter is what an index knows
            portion = list(later.values_list(*columns)[: database.ROWS_AT_ONCE])
