"""What the stand-in remembers: an account's conversations, and how they are listed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

Row = dict[str, Any]

DETAIL_ONLY = ("messages", "user_id", "inbound_id", "human_handoff_at", "human_handoff_reason")
"""Fields that a list leaves out in both dialects."""
DETAIL_ONLY_IN_A = ("timed_out_at", "ended_by_end_call_node", "curr_pathway_version")

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda told, asked: bool(told == asked),
    "gt": lambda told, asked: bool(told > asked),
    "gte": lambda told, asked: bool(told >= asked),
    "lt": lambda told, asked: bool(told < asked),
    "lte": lambda told, asked: bool(told <= asked),
    "contains": lambda told, asked: asked in told,
    "startsWith": lambda told, asked: bool(told.startswith(asked)),
    "endsWith": lambda told, asked: bool(told.endswith(asked)),
}
_OPERATORS_B = {
    **{name: test for name, test in _OPERATORS.items() if name != "eq"},
    "equals": _OPERATORS["eq"],
    "not": lambda told, asked: bool(told != asked),
}
_FIELDS = {
    "created_at",
    "updated_at",
    "user_number",
    "agent_number",
    "is_active",
    "message_count",
    "last_message_at",
    "curr_pathway_id",
}


class BadParameterError(Exception):
    """Dialect B refuses a page of more than 1000 with ``INVALID_PARAMETER``."""


def now_text() -> str:
    """The time as Bland writes it: UTC, milliseconds, ``Z``."""
    now = datetime.now(timezone.utc)
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


class Account:
    """Conversations by id, in the shape of Bland's answers. Safe to use from many threads."""

    def __init__(self, dialect: str = "a") -> None:
        self.dialect = dialect
        self.ignores_filters = False
        self.longest_page: int | None = None
        """A server may clamp the page size that was asked for."""
        self.restart_after_end_call = True
        """Of our numbers: whether a text after the end of a conversation begins a new one."""
        self.lock = threading.RLock()
        self.rows: dict[str, Row] = {}

    def add(self, row: Mapping[str, Any]) -> Row:
        """Put a conversation in; what it lacks gets a plain value."""
        moment = now_text()
        full: Row = {
            "created_at": moment,
            "updated_at": moment,
            "user_number": "+15550100001",
            "agent_number": "+15550190001",
            "is_active": True,
            "message_count": len(row.get("messages", [])),
            "last_message": None,
            "last_message_at": None,
            "variables": {},
            "current_node_id": None,
            "curr_pathway_id": None,
            "curr_pathway_version": None,
            "timed_out_at": None,
            "ended_by_end_call_node": False,
            "pathway_tags": None,
            "effective_channel": "sms",
            "summary": None,
            "citation_variables": None,
            "disposition_tag": None,
            "human_handoff_at": None,
            "messages": [],
            **row,
        }
        with self.lock:
            self.rows[full["id"]] = full
        return full

    def set_active(self, conversation_id: str, is_active: bool) -> Row:
        """What an update does. Raises KeyError."""
        with self.lock:
            row = self.rows[conversation_id]
            row["is_active"] = is_active
            row["updated_at"] = now_text()
            return dict(row)

    def newest_of(self, user_number: str, agent_number: str) -> Row | None:
        """The conversation of two numbers that was added last."""
        for row in reversed(self.rows.values()):
            if (row["user_number"], row["agent_number"]) == (user_number, agent_number):
                return row
        return None

    def write(self, conversation_id: str, sender: str, text: str) -> None:
        """Append a message."""
        with self.lock:
            row = self.rows[conversation_id]
            number, moment = len(row["messages"]) + 1, now_text()
            message = {"id": f"SM{number:04d}", "sender": sender, "text": text}
            row["messages"] = [*row["messages"], {**message, "created_at": moment}]
            row |= {"message_count": number, "last_message": text}
            row |= {"last_message_at": moment, "updated_at": moment}

    def detail(self, conversation_id: str) -> Row:
        """One conversation with its messages. Raises KeyError."""
        with self.lock:
            return dict(self.rows[conversation_id])

    def list_page(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        """The body of a list answer, in the account's dialect. Raises BadParameterError."""
        with self.lock:
            rows = list(self.rows.values())
        return self._page_b(rows, query) if self.dialect == "b" else self._page_a(rows, query)

    def _page_a(self, rows: list[Row], query: Mapping[str, list[str]]) -> dict[str, Any]:
        page, size = _number(query, "page", 1), self._clamped(_number(query, "pageSize", 25))
        rows = self._matching(rows, query.get("filters", []), _OPERATORS)
        ascending = _first(query, "sortDir", "desc") == "asc"
        rows = _sorted(rows, _first(query, "sortBy", "created_at"), ascending)
        found = rows[(page - 1) * size : page * size]
        hidden = (*DETAIL_ONLY, *DETAIL_ONLY_IN_A)
        return {
            "data": [_without(row, hidden) for row in found],
            "errors": None,
            "extra": {"pagination": _pagination(len(rows), page, size)},
        }

    def _page_b(self, rows: list[Row], query: Mapping[str, list[str]]) -> dict[str, Any]:
        limit, start = _number(query, "limit", 1000), _number(query, "from", 0)
        if limit > 1000:
            raise BadParameterError("limit must be at most 1000")
        size = self._clamped(limit)
        given = [*query.get("filters[]", []), *query.get("filters", [])]
        rows = self._matching(rows, given, _OPERATORS_B)
        ascending = _first(query, "ascending", "false") == "true"
        rows = _sorted(rows, _first(query, "sort_by", "created_at"), ascending)
        found = rows[start : start + size]
        return {
            "data": [_without(row, DETAIL_ONLY) for row in found],
            "errors": None,
            "pagination": _pagination(len(rows), start // max(1, size) + 1, size),
        }

    def _clamped(self, size: int) -> int:
        return size if self.longest_page is None else min(size, self.longest_page)

    def _matching(
        self,
        rows: list[Row],
        texts: list[str],
        operators: Mapping[str, Callable[[Any, Any], bool]],
    ) -> list[Row]:
        if self.ignores_filters:
            return rows
        for condition in _conditions(texts):
            name, value = condition.get("field"), condition.get("value")
            test = operators.get(str(condition.get("operator")))
            if name not in _FIELDS or test is None:
                continue  # the newer documentation: an unknown filter is ignored, not refused
            rows = [row for row in rows if row[name] is not None and test(row[name], value)]
        return rows


def _conditions(texts: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for text in texts:
        try:
            parsed = json.loads(text)
        except ValueError:
            continue
        found += parsed if isinstance(parsed, list) else [parsed]
    return [condition for condition in found if isinstance(condition, dict)]


def _sorted(rows: list[Row], name: str, ascending: bool) -> list[Row]:
    name = name if name in _FIELDS else "created_at"
    known = [row for row in rows if row[name] is not None]
    unknown = [row for row in rows if row[name] is None]
    return sorted(known, key=lambda row: row[name], reverse=not ascending) + unknown


def _pagination(total: int, page: int, size: int) -> dict[str, int]:
    return {
        "totalItems": total,
        "totalPages": -(-total // max(1, size)),
        "currentPage": page,
        "pageSize": size,
    }


def _without(row: Row, names: tuple[str, ...]) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _first(query: Mapping[str, list[str]], name: str, default: str) -> str:
    return query.get(name, [default])[0]


def _number(query: Mapping[str, list[str]], name: str, default: int) -> int:
    text = _first(query, name, str(default))
    return int(text) if text.isascii() and text.isdigit() else default
