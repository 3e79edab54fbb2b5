"""Reads a pasted text or a file as lines, each with one number, address or conversation id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from ..customers import bare, digits_of, folded, is_address, is_number
from ..payloads import is_conversation_id
from ..search import FEWEST_DIGITS, NATIONAL_DIGITS, Term, read_term, split_terms
from .spreadsheets import (
    MAX_FILE_BYTES,
    ListError,
    Row,
    cells_of,
    rows_of_file,
    separator_of,
)

__all__ = ["MAX_FILE_BYTES", "MAX_LINES", "Line", "ListError", "read_file", "read_text"]

MAX_LINES = 5000
MAX_TEXT = 255
SAMPLED_ROWS = 200
"""Rows that are looked at to find the column of a table."""
SHORTEST_ID = 8
"""A shorter word with digits is rather another system's code than a conversation's id."""

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_FORMULA = re.compile(r'=\s*"?(.*?)"?', re.DOTALL)
_SCIENTIFIC = re.compile(r"(?<![\w.,])\d+([.,]\d+)?e\+?\d{1,2}(?![\w.,])", re.I | re.ASCII)
_PHONE = re.compile(r"phone|mobile|m\u00f3vil|movil|cell|whatsapp|sms|\btel|e\.?164", re.I)
"""Headings of a column of customers' numbers, in the languages of the app and their neighbours."""
_OUR_FILES: tuple[tuple[set[str], str], ...] = (
    ({"id", "user_number", "agent_number"}, "id"),
    ({"conversation", "http_status"}, "conversation"),
    ({"line", "text", "state"}, "text"),
)
"""Columns that tell a file of our own, and the one that names the conversations in it."""


@dataclass(frozen=True)
class Line:
    """One line that is not empty."""

    number: int
    """From 1, as an editor or a spreadsheet counts."""
    text: str = field(repr=False)
    term: Term | None = field(repr=False)
    """``None``: it could not be read, and ``code`` says why."""
    code: str = ""


def read_text(text: str) -> list[Line]:
    """Read what was pasted into a box. Raises ListError: too long, or empty."""
    lines = [
        (number, line)
        for number, line in enumerate(_LINE_BREAK.split(text), start=1)
        if line.strip()
    ]
    _check_length(len(lines))
    if len(lines) == 1:
        terms = list(split_terms(folded(lines[0][1])))
        if len(terms) > 1 and all(map(_worth, terms)):  # from a box of one line, such as the search
            _check_length(len(terms))
            return [_line(number, [term]) for number, term in enumerate(terms, start=1)]
    separator = separator_of([line for _number, line in lines])
    return _read_rows([(number, cells_of(line, separator)) for number, line in lines])


def read_file(file: BinaryIO) -> list[Line]:
    """Read a CSV file, or an Excel one. Raises ListError: what is wrong with it."""
    rows: list[Row] = []
    for number, cells in rows_of_file(file):
        if any(map(str.strip, cells)):
            rows.append((number, cells))
            _check_length(len(rows), at_least=0)
    _check_length(len(rows))
    return _read_rows(rows, is_file=True)


def _check_length(number: int, *, at_least: int = 1) -> None:
    if number < at_least:
        raise ListError("list_empty")
    if number > MAX_LINES:
        raise ListError("list_too_long", number=MAX_LINES)


# --- tables -----------------------------------------------------------------------------------


def _read_rows(rows: Sequence[Row], *, is_file: bool = False) -> list[Line]:
    cleaned = [(number, [_clean(cell) for cell in cells]) for number, cells in rows]
    if not is_file and all(len(cells) == 1 for _number, cells in cleaned):
        return [_line(number, cells) for number, cells in cleaned]
    column, has_heading = _column(cleaned)
    if not has_heading:
        return [_line(number, _from(column, cells)) for number, cells in cleaned]
    # A real table: what is missing in its column is not looked for in another one.
    lines = [_line(number, cells[column : column + 1]) for number, cells in cleaned]
    return [Line(lines[0].number, lines[0].text, None, "line_heading"), *lines[1:]]


def _from(column: int, cells: Sequence[str]) -> Sequence[str]:
    """What a row may be read from: its cell of the column, or all of it where that has no digit."""
    preferred = cells[column : column + 1]
    return preferred if any(map(digits_of, preferred)) else cells


def _column(rows: Sequence[Row]) -> tuple[int, bool]:
    """The column that names the customers, and whether the first row is its heading.

    The one that is called so, else the one with the most different numbers: our own repeat.
    """
    first = [cell.lower() for cell in rows[0][1]]
    for names, wanted in _OUR_FILES:
        if names <= set(first):
            return first.index(wanted), True
    sample = [cells for _number, cells in rows[:SAMPLED_ROWS]]
    width = max(map(len, sample))
    columns = [{cells[at] for cells in sample if at < len(cells)} for at in range(width)]
    worth = [sum(map(_worth, column)) for column in columns]
    called = [at for at in range(min(width, len(first))) if worth[at] and _PHONE.search(first[at])]
    best = max(called or range(width), key=lambda at: worth[at])
    return best, worth[best] > 0 and not digits_of("".join(first)) and not any(map(_worth, first))


def _line(number: int, cells: Sequence[str]) -> Line:
    """One line: what looks most like a number, an address or an id in its cells."""
    best = max(_pieces(cells), key=_worth, default="")
    if not _worth(best):
        best = " ".join(filter(None, cells))  # perhaps a name on another channel
        code = _why_not(best)
        if code:
            return Line(number, best[:MAX_TEXT], None, code)
    if len(best) > MAX_TEXT:
        return Line(number, best[:MAX_TEXT], None, "line_too_long")
    return Line(number, best, read_term(best))


def _pieces(cells: Iterable[str]) -> Iterable[str]:
    """Cells, and of those that are more than a number the numbers in them."""
    for cell in cells:
        if _worth(cell):
            yield cell
        elif not _SCIENTIFIC.search(cell):  # "1.5E+10 " is no "10"
            yield from split_terms(cell)


def _why_not(text: str) -> str:
    """Why a text without a number cannot be looked for; ``""``: it can."""
    if _SCIENTIFIC.search(text):
        return "line_scientific"
    identity = bare(text)
    if is_number(identity) and len(digits_of(identity)) < FEWEST_DIGITS:
        return "line_too_short"
    return "" if any(map(str.isalnum, text)) else "line_without_number"


def _worth(text: str) -> int:
    """How much a text looks like what names a customer; 0: like a word."""
    identity = bare(text)
    if is_number(identity):
        digits = len(digits_of(identity))
        if identity.startswith("+") or identity != text:  # "tel:..."
            return 4 if digits >= FEWEST_DIGITS else 0
        if digits >= NATIONAL_DIGITS:
            return 3
        return 1 if digits >= FEWEST_DIGITS else 0
    if _SCIENTIFIC.fullmatch(text):
        return 0
    if is_address(identity):
        return 3
    has_digit = any(map(str.isdecimal, text))
    return 2 if has_digit and len(text) >= SHORTEST_ID and is_conversation_id(text) else 0


def _clean(cell: str) -> str:
    """A cell without what spreadsheets put around text: ``="..."``, an apostrophe in front."""
    text = folded(cell).strip()
    if text.startswith("="):
        found = _FORMULA.fullmatch(text)
        text = found[1].strip() if found else text
    return text.strip("\"'`\u2018\u2019\u201c\u201d ").strip()
