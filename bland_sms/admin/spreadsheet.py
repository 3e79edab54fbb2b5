"""CSV that a spreadsheet shows and does not execute."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.http import StreamingHttpResponse

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\0")
_PHONE_NUMBER = re.compile(r"\+?[0-9]{1,15}", re.ASCII)


def safe_cell(value: Any) -> str:
    """Text that no spreadsheet takes for a formula; phone numbers stay as they are.

    Source: CWE-1236, OWASP ASVS 1.2.10.
    """
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    if text.startswith(_FORMULA_STARTS) and not _PHONE_NUMBER.fullmatch(text):
        return f"'{text}"
    return text


class _Echo:
    """Where csv writes to: it hands each line on."""

    def write(self, line: str) -> str:
        return line


def csv_response(
    filename: str, header: Iterable[str], rows: Iterable[Iterable[Any]]
) -> StreamingHttpResponse:
    """A download, written row by row: memory does not grow with it."""
    writer = csv.writer(_Echo())

    def lines() -> Iterator[str]:
        yield "\ufeff" + writer.writerow(list(header))  # Excel takes it for UTF-8 by this mark
        for row in rows:
            yield writer.writerow([safe_cell(value) for value in row])

    return StreamingHttpResponse(
        lines(),
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{filename}"',
            "Cache-Control": "no-store",
        },
    )
