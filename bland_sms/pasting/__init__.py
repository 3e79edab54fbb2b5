"""A pasted list of customers, or a spreadsheet: how its lines are read, and whom they mean."""

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .matching import MOST_CANDIDATES, Match, candidate_match, match
    from .reading import MAX_FILE_BYTES, MAX_LINES, Line, ListError, read_file, read_text

__getattr__ = on_demand(
    __name__,
    matching="MOST_CANDIDATES Match candidate_match match",
    reading="MAX_FILE_BYTES MAX_LINES Line ListError read_file read_text",
)

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_LINES",
    "MOST_CANDIDATES",
    "Line",
    "ListError",
    "Match",
    "candidate_match",
    "match",
    "read_file",
    "read_text",
]
