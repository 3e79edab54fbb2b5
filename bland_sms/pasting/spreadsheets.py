"""Rows of a CSV or Excel file, or of a text that was copied from a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from ..reasons import Failure

MAX_FILE_BYTES = 5 * 1024 * 1024
MAX_UNPACKED_BYTES = 60 * 1024 * 1024
"""Of an Excel file, which is a ZIP archive: a small one may hold any amount."""
MAX_CELL_CHARACTERS = 32_767
"""What a cell of Excel can hold; ``csv`` has a limit of its own, which is the whole process's."""
MAX_COLUMNS = 100
SEPARATORS = "\t;,|"
_DECIMAL_COMMA = re.compile(r"\d,\d+E\+", re.IGNORECASE)
EXACT_DIGITS = 15
"""Excel keeps no more digits of a number."""

Row = tuple[int, list[str]]
"""The number of the line, and its cells."""


class ListError(ValueError):
    """A list that cannot be read. ``str()`` is a sentence in the active language."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code)
        self.failure = Failure(code, params)

    def __str__(self) -> str:
        return self.failure.advice


def separator_of(lines: Sequence[str]) -> str:
    """What separates the cells in at least half of the lines; ``""``: nothing does."""
    plain = [_DECIMAL_COMMA.sub(" ", line) for line in lines]
    numbers = {mark: sum(mark in line for line in plain) for mark in SEPARATORS}
    best = max(SEPARATORS, key=lambda mark: numbers[mark])
    return best if numbers[best] * 2 >= max(1, len(lines)) else ""


def cells_of(line: str, separator: str) -> list[str]:
    """The cells of one line. A quotation mark that is not closed ends with its line."""
    if not separator:
        return [line]
    try:
        return next(csv.reader([line], delimiter=separator), [""])[:MAX_COLUMNS]
    except csv.Error:
        return [line]


def rows_of_file(file: BinaryIO) -> Iterator[Row]:
    """Every row of a file. Raises ListError: too large, not a spreadsheet, or no Excel here."""
    content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ListError("file_too_large", number=MAX_FILE_BYTES // 1024**2)
    if content.startswith(b"PK\x03\x04"):
        yield from _excel_rows(content)
        return
    text = _decoded(content)
    separator = separator_of(text.splitlines()[:200]) or ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for cells in reader:
            if max(map(len, cells), default=0) > MAX_CELL_CHARACTERS:
                raise ListError("not_a_spreadsheet")
            yield reader.line_num, cells[:MAX_COLUMNS]
    except csv.Error:
        raise ListError("not_a_spreadsheet") from None


def _decoded(content: bytes) -> str:
    """Text as Excel and others save it: UTF-8, "Unicode text" (UTF-16), or Western European."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", errors="replace")
    if any(ord(char) < 32 and char not in "\t\n\r\f\v" for char in text) or text.startswith("%PDF"):
        raise ListError("not_a_spreadsheet")
    return text


def _excel_rows(content: bytes) -> Iterator[Row]:
    """The rows of the sheet that is open in an Excel file, one after the other."""
    try:
        import openpyxl
    except ImportError:
        raise ListError("no_excel") from None
    try:
        _check_unpacked(content)
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = workbook.active or workbook.worksheets[0]
        rows = sheet.iter_rows(max_col=MAX_COLUMNS, values_only=True)
        for number, values in enumerate(rows, start=1):
            yield number, [_excel_text(value) for value in values]
    except ListError:
        raise
    except Exception as error:  # a damaged file raises whatever its XML runs into
        raise ListError("not_a_spreadsheet") from error


def _check_unpacked(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MAX_UNPACKED_BYTES:
        raise ListError("file_too_large", number=MAX_UNPACKED_BYTES // 1024**2)


def _excel_text(value: object) -> str:
    """A cell as text. A number that Excel has rounded is written as it shows it."""
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) >= 10**EXACT_DIGITS:
            return f"{value:E}"
        return str(int(value)) if value == int(value) else str(value)
    return str(value)
