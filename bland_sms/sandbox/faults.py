"""Scripted faults: what goes wrong, for which conversation or call, and how often.

A fault is a text, ``name`` or ``name:argument``, or a dict that spells an answer out. With
``forever:`` before it, it never wears off; without, it happens once. Targets are a
conversation's id, ``list`` for the list, ``*`` for every call, or ``#20`` for the twentieth call
that the server gets. ``PATCH *`` or ``GET conv_1`` narrows a target to one method.

==================  ==========================================================================
hang_before:S       no answer for S seconds, nothing applied, connection closed
hang_after:S        the same, but applied
reset_before        connection reset, nothing applied; ``reset_after``: applied
close_before        connection closed without an answer; ``close_after``: applied
429, 503, ...       an error with that status; ``503:2`` with ``Retry-After: 2``, ``429date:2``
                    with a date, ``429junk`` with nonsense
500_applied         500 although it was applied
404_route           404 as from a wrong base URL, without Bland's code
html502             502 with a page of HTML
redirect302:URL     a redirect (also 301, 303, 307, 308)
truncated           a body shorter than its Content-Length
bad_json, empty200, html200, list_body, errors_body, nan, infinite, deep, duplicate_keys
wrong_id            an answer about another conversation
missing, nulls, strings, numbers   ``is_active`` absent, null, ``"false"``, 0
not_applied         200, and ``is_active`` as it was
old_ts, bad_ts:TEXT, no_ts, future_ts   odd ``updated_at``, in the answer only
drip:S              one byte each S seconds
huge:MB, gzipbomb:MB   a body of so many megabytes
echo_key            an error that repeats the key
cookie              an answer that sets a cookie
{...}               ``{"status": 418, "headers": {...}, "body": "..."}``; a header that is a list
                    is sent as often; the body may be text, bytes, or what becomes JSON
==================  ==========================================================================
"""

from __future__ import annotations

import re
import threading
from typing import Any

Fault = str | dict[str, Any]
_STATUS = re.compile(r"[3-5][0-9]{2}(date|junk)?|redirect3[0-9]{2}")
NAMES = {
    *("hang_before", "hang_after", "reset_before", "reset_after", "close_before", "close_after"),
    *("500_applied", "404_route", "html502", "truncated", "bad_json", "empty200", "html200"),
    *("list_body", "errors_body", "nan", "infinite", "deep", "duplicate_keys", "wrong_id"),
    *("missing", "nulls", "strings", "numbers", "not_applied", "old_ts", "bad_ts", "no_ts"),
    *("future_ts", "drip", "huge", "gzipbomb", "echo_key", "cookie"),
}


class FaultBook:
    """Which fault is next. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[str, list[Fault]] = {}

    def add(self, target: str, *faults: Fault) -> None:
        """Line up faults for a target; each happens once unless it is ``forever:``.

        Raises:
            ValueError: there is no fault of that name.
        """
        for fault in faults:
            check_fault(fault)
        with self._lock:
            self._faults.setdefault(target, []).extend(faults)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def next(self, method: str, conversation_id: str, call_number: int) -> Fault | None:
        """The fault that this call suffers; one that happens once is used up by it."""
        name = conversation_id or "list"
        targets = (f"#{call_number}", f"{method} {name}", name, f"{method} *", "*")
        with self._lock:
            for target in targets:
                faults = self._faults.get(target)
                if faults:
                    fault = faults[0]
                    if isinstance(fault, str) and fault.startswith("forever:"):
                        return fault.removeprefix("forever:")
                    return faults.pop(0)
        return None


def check_fault(fault: Fault) -> None:
    """Raises ValueError: a name that is misspelt would quietly do nothing."""
    if isinstance(fault, dict):
        return
    name, _argument = split(fault.removeprefix("forever:"))
    if name not in NAMES and not _STATUS.fullmatch(name):
        raise ValueError(f"there is no fault {name!r}")


def split(fault: str) -> tuple[str, str]:
    """A fault's name and its argument."""
    name, _, argument = fault.partition(":")
    return name, argument
