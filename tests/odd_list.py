"""A stand-in for Bland's list that fails in every way a list can, in the test's own process.

It is written from Bland's documentation alone and shares no code with ``bland_sms.sandbox``.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import responses

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
Answer = tuple[int, dict[str, str], str]


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class OddList:
    """An account whose list moves, repeats itself, lies and fails.

    ``faults`` are used up one for each list request; ``None`` is a proper answer. ``moves``
    happen after each list request.
    """

    def __init__(self, base_url: str = "https://odd.invalid", dialect: str = "a") -> None:
        self.base_url = base_url
        self.dialect = dialect
        self.rows: dict[str, dict[str, Any]] = {}
        self.clock = BEGIN + 1000 * HOUR
        self.clamp = 1000
        self.faults: list[str | None] = []
        self.moves: list[tuple[str, int]] = []
        self.poison: set[str] = set()
        """Conversations: a page that holds one of them answers 500, for ever."""
        self.dead_hours: tuple[int, int] | None = None
        """Lists that begin in these hours answer 500, for ever."""
        self.dead_details: set[str] = set()
        self.is_down = False
        self.refuses_key = False
        self.refuses_first = False
        """Each question is refused with 429 when it is asked for the first time."""
        self._refused: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.asked: list[str] = []
        """Ids of conversations that were asked for by themselves."""
        self._last: str | None = None
        self._lock = threading.RLock()
        self._chance = random.Random(5)

    def __enter__(self) -> OddList:
        self._mock = responses.RequestsMock(assert_all_requests_are_fired=False)
        self._mock.start()
        self._mock.add_callback(
            responses.GET, re.compile(re.escape(self.base_url)), callback=self._answer
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._mock.stop()
        self._mock.reset()

    def add(self, name: str, created: float, updated: float | None = None, **values: Any) -> None:
        """Make a conversation; times in hours since the beginning."""
        changed = created if updated is None else updated
        self.rows[name] = {
            "id": name,
            "created_at": iso(BEGIN + created * HOUR),
            "updated_at": iso(BEGIN + changed * HOUR),
            "user_number": "+15550100001",
            "agent_number": "+15550190001",
            "is_active": True,
            "message_count": 0,
            **values,
        }

    def touch(self, name: str) -> None:
        self.clock += HOUR
        row = self.rows[name]
        row["is_active"] = not row["is_active"]
        row["updated_at"] = iso(self.clock)

    # --- answering ----------------------------------------------------------------------------

    def _answer(self, request: Any) -> Answer:
        parts = urlsplit(request.url)
        with self._lock:
            if self.is_down:
                self.requests["down"] += 1
                return self._failure(500)
            if self.refuses_key:
                return self._failure(401, "UNAUTHORIZED")
            name = parts.path.removeprefix("/v1/sms/conversations").strip("/")
            if name:
                self.requests["detail"] += 1
                return self._detail(name)
            if self.refuses_first and request.url not in self._refused:
                self._refused.add(request.url)
                self.requests["refused"] += 1
                return self._failure(429)
            self.requests["list"] += 1
            answer = self._list(parse_qs(parts.query))
            for _ in range(min(1, len(self.moves))):
                self._move(*self.moves.pop(0))
            return answer

    def _headers(self) -> dict[str, str]:
        return {"Date": format_datetime(self.clock, usegmt=True)}

    def _failure(self, status: int, code: str = "ERROR") -> Answer:
        body = {"data": None, "errors": [{"error": code, "message": "no"}]}
        return status, self._headers(), json.dumps(body)

    def _detail(self, name: str) -> Answer:
        self.asked.append(name)
        if name in self.dead_details:
            return self._failure(500)
        row = self.rows.get(name)
        if row is None:
            return self._failure(404, "CONVERSATION_NOT_FOUND")
        body = {"data": {**row, "messages": []}, "errors": None}
        return 200, self._headers(), json.dumps(body)

    def _list(self, query: dict[str, list[str]]) -> Answer:
        fault = self.faults.pop(0) if self.faults else None
        if fault == "500":
            return self._failure(500)
        if fault == "html":
            return 200, self._headers(), "<html>oops</html>"
        if fault == "no list":
            return 200, self._headers(), json.dumps({"data": {"rows": []}, "errors": None})
        if fault == "repeat" and self._last is not None:
            return 200, self._headers(), self._last
        rows = self._rows(query)
        if fault == "shuffled":
            self._chance.shuffle(rows)
        elif fault == "longer":
            rows = [*rows, *self.rows.values()]
        elif fault == "empty":
            rows = []
        elif fault == "other page":
            rows = sorted(self.rows.values(), key=lambda row: row["created_at"])[: len(rows)]
        elif self._is_poisoned(rows, query):
            return self._failure(500)
        self._last = json.dumps({"data": rows, "errors": None})
        return 200, self._headers(), self._last

    def _is_poisoned(self, rows: list[dict[str, Any]], query: dict[str, list[str]]) -> bool:
        if any(row["id"] in self.poison for row in rows):
            return True
        bounds = [one["value"] for one in self._conditions(query) if one["operator"] == "gte"]
        if self.dead_hours is None or not bounds:
            return False
        begin, end = (iso(BEGIN + hour * HOUR) for hour in self.dead_hours)
        return begin <= bounds[0] < end

    @staticmethod
    def _conditions(query: dict[str, list[str]]) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(query.get("filters", ["[]"])[0])
        return found

    def _rows(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        one = {name: values[0] for name, values in query.items()}
        if self.dialect == "a":
            is_understood = "sortBy" in one
            size = min(int(one.get("pageSize", 25)), self.clamp)
            first = (int(one.get("page", 1)) - 1) * size
            column, is_up = one.get("sortBy", "created_at"), one.get("sortDir") == "asc"
        else:
            is_understood = "sort_by" in one
            size = min(int(one.get("limit", 1000)), self.clamp)
            first = int(one.get("from", 0))
            column, is_up = one.get("sort_by", "created_at"), one.get("ascending") == "true"
        rows = list(self.rows.values())
        for condition in self._conditions(query) if is_understood else []:
            told, name = condition["value"], condition["field"]
            known = [row for row in rows if isinstance(row[name], str)]
            is_from = condition["operator"] == "gte"
            rows = [row for row in known if (row[name] >= told if is_from else row[name] < told)]
        timeless = [row for row in rows if not isinstance(row[column], str)]
        timed = [row for row in rows if isinstance(row[column], str)]
        timed.sort(key=lambda row: (row[column], row["id"]), reverse=not is_up)
        return [dict(row) for row in [*timed, *timeless][first : first + size]]

    def _move(self, kind: str, number: int) -> None:
        names = sorted(name for name, row in self.rows.items() if _has_time(row))
        if kind == "add" or not names:
            self.clock += HOUR
            hours = (self.clock - BEGIN) / HOUR
            self.add(f"late{self.requests['list']}", hours)
        elif kind == "touch":
            self.touch(names[number % len(names)])
        else:
            self.clock += HOUR
            del self.rows[names[number % len(names)]]


def _has_time(row: dict[str, Any]) -> bool:
    return isinstance(row["updated_at"], str) and row["updated_at"] < "2100"
