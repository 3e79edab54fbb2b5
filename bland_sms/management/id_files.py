"""Reads conversation ids from a file: a plain list, or a CSV such as the admin exports."""

from __future__ import annotations

import codecs
import csv
import io
import re

HEADERS = {"id", "conversation", "conversation_id", "conversation id"}
"""Names of the column of ids; the first two are those of our own CSV files."""
SEPARATORS = ",;\t|"
_BETWEEN = re.compile(r"[\s,;|\"']+")


def ids_of_list(text: str) -> list[str]:
    """Ids separated by white space or punctuation, with or without quotation marks."""
    return [word for word in _BETWEEN.split(text) if word]


def ids_of_file(content: bytes | str) -> list[str]:
    """The ids of a file. Where its first line names a column of ids, nothing else is read.

    Raises:
        UnicodeDecodeError: neither UTF-8 nor UTF-16.
    """
    text = content if isinstance(content, str) else decoded(content)
    text = text.lstrip("\ufeff")
    first_line = next((line for line in text.splitlines() if line.strip()), "")
    for separator in SEPARATORS:
        [names] = list(csv.reader([first_line], delimiter=separator)) or [[]]
        places = [place for place, name in enumerate(names) if _cell(name).lower() in HEADERS]
        if places:
            return _column(text, separator, places[0])
    return ids_of_list(text)


def _column(text: str, separator: str, place: int) -> list[str]:
    limit = csv.field_size_limit()  # the whole process's
    try:
        csv.field_size_limit(max(limit, len(text)))  # a text can be long
        rows = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=separator)
        next(rows)
        found = [_cell(row[place]) for row in rows if len(row) > place]
    finally:
        csv.field_size_limit(limit)
    return [one for one in found if one]


def _cell(text: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from taking a cell for a formula."""
    return text.strip().strip("'").strip()


def decoded(content: bytes) -> str:
    """The text of a file. Raises UnicodeDecodeError: neither UTF-8 nor UTF-16."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if content[1:2] == b"\0":  # an id begins with a letter or digit
        return content.decode("utf-16-le")
    if content[:1] == b"\0":
        return content.decode("utf-16-be")
    return content.decode("utf-8-sig")
