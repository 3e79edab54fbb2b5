"""Pages by keyset: no row is lost or repeated however many share a value, and none is counted."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.template import loader
from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

from ..payloads import CONVERSATION_ID, EPOCH
from ..reasons import Failure
from .errors import refusal_of

PAGE_SIZE = 50
MOST_ROWS = 200
NUMBER = "[0-9]{1,18}"
MICROSECOND = timedelta(microseconds=1)


class Position(NamedTuple):
    """A place between two rows: right after the one with these values, or right before it."""

    is_backward: bool
    values: tuple[Any, ...]


class KeysetPagination(BasePagination):
    """Rows in the order of ``keys``, the last of which is unique.

    DRF's own cursor counts the rows that share a value, gives up at a thousand of them and goes
    round in circles. This one remembers the values of the page's last row, and asks for what
    comes after them.
    """

    keys: tuple[str, ...] = ("pk",)
    cursor = f"({NUMBER})"
    """Pattern of the values in a cursor. Whatever matches is a position, with or without a row."""
    is_descending = False
    template = "rest_framework/pagination/previous_and_next.html"

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any]:
        size = _read_size(request.query_params.get("page_size"))
        position = self._read_cursor(request.query_params.get("cursor"))
        rows = self._rows(queryset, position, size + 1)
        has_more, rows = len(rows) > size, rows[:size]
        is_backward = position is not None and position.is_backward
        if is_backward:
            rows.reverse()
        came_from = position is not None and bool(rows)
        has_next, has_previous = (came_from, has_more) if is_backward else (has_more, came_from)
        url = request.build_absolute_uri()
        self.next = self._link(url, rows[-1], is_backward=False) if has_next else None
        self.previous = self._link(url, rows[0], is_backward=True) if has_previous else None
        self.display_page_controls = has_next or has_previous
        return rows

    def _rows(self, queryset: QuerySet[Any], position: Position | None, number: int) -> list[Any]:
        """Up to ``number`` rows from a position on, by at most two looks into an index.

        One for the rest of those that share the first value, one for what lies beyond: as a
        single condition with OR it is a scan on one database or another.
        """
        is_descending = self.is_descending is not (position is not None and position.is_backward)
        queryset = queryset.order_by(*(f"-{key}" if is_descending else key for key in self.keys))
        if position is None:
            return list(queryset[:number])
        beyond = "lt" if is_descending else "gt"
        *firsts, last = position.values
        tied = dict(zip(self.keys, firsts, strict=False))
        rows = list(queryset.filter(**tied, **{f"{self.keys[-1]}__{beyond}": last})[:number])
        if firsts and len(rows) < number:
            later = queryset.filter(**{f"{self.keys[0]}__{beyond}": firsts[0]})
            rows += later[: number - len(rows)]
        return rows

    # --- cursors ------------------------------------------------------------------------------

    def _link(self, url: str, row: Any, *, is_backward: bool) -> str:
        values = ".".join(self.write(*(getattr(row, key) for key in self.keys)))
        return str(replace_query_param(url, "cursor", f"{'p' if is_backward else 'n'}{values}"))

    def _read_cursor(self, text: str | None) -> Position | None:
        if text is None:
            return None
        match = re.fullmatch(f"([np]){self.cursor}", text, re.ASCII)
        if match is None:
            raise refusal_of(Failure("invalid_cursor"))
        direction, *values = match.groups()
        return Position(direction == "p", self.read(*values))

    def write(self, *values: Any) -> list[str]:
        """The values of ``keys`` as a cursor says them."""
        return [str(value) for value in values]

    def read(self, *values: str) -> tuple[Any, ...]:
        """What ``cursor`` has matched, as the database compares it."""
        return tuple(int(value) for value in values)

    # --- answers ------------------------------------------------------------------------------

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self.next, "previous": self.previous, "results": data})

    def get_results(self, data: Any) -> Any:
        return data["results"]

    def to_html(self) -> str:
        context = {"previous_url": self.previous, "next_url": self.next}
        return loader.get_template(self.template).render(context)

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        return [
            {
                "name": "cursor",
                "in": "query",
                "required": False,
                "description": "Where the page begins, from the `next` or `previous` of another.",
                "schema": {"type": "string", "pattern": f"^[np]{self.cursor}$"},
            },
            {
                "name": "page_size",
                "in": "query",
                "required": False,
                "description": f"Rows of a page; more than {MOST_ROWS} count as {MOST_ROWS}.",
                "schema": {"type": "integer", "minimum": 1, "default": PAGE_SIZE},
            },
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": "string", "format": "uri", "nullable": True}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }


class ConversationPages(KeysetPagination):
    """Conversations, the one that Bland updated last first."""

    keys = ("updated_at", "pk")
    cursor = rf"(-?[0-9]{{1,16}})\.({CONVERSATION_ID.pattern})"
    is_descending = True

    def write(self, *values: Any) -> list[str]:
        updated_at, conversation_id = values
        return [str((updated_at - EPOCH) // MICROSECOND), conversation_id]

    def read(self, *values: str) -> tuple[Any, ...]:
        microseconds, conversation_id = values
        return EPOCH + int(microseconds) * MICROSECOND, conversation_id


class NewestPages(KeysetPagination):
    """Rows by primary key, the newest first."""

    is_descending = True


class MessagePages(KeysetPagination):
    """Messages in Bland's own order, the oldest first."""

    keys = ("position", "pk")
    cursor = rf"({NUMBER})\.({NUMBER})"

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        page = super().get_paginated_response_schema(schema)
        moment = {
            "type": "string",
            "format": "date-time",
            "nullable": True,
            "description": "When the transcript was copied from Bland; null: never.",
        }
        return {**page, "properties": {**page["properties"], "copied_at": moment}}


def _read_size(text: str | None) -> int:
    if text is None:
        return PAGE_SIZE
    if text.isascii() and text.isdigit() and text.strip("0"):
        return MOST_ROWS if len(text.lstrip("0")) > 3 else min(int(text), MOST_ROWS)
    words = _("A whole number from 1 to %d.") % MOST_ROWS
    raise ValidationError({"page_size": [ErrorDetail(words, "invalid")]})
