"""What the parameters of a list may say. All of them are answered by an index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from django.db.models import Model, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from ..conf import get_settings
from ..customers import typed_key
from ..models import BulkUpdate, BulkUpdateItem, Conversation, StandingOrder
from ..models.conversation import Status
from ..payloads import EPOCH
from ..search import FEWEST_DIGITS, MAX_TERMS, find, parse_search
from .errors import did_you_mean

PAGING = ("cursor", "page_size")
NUMBER = re.compile("[ -~]{1,64}")
USABLE_SEARCH = re.compile(r"[A-Za-z_]|[0-9]([ +().\-/]*[0-9]){3}")

Narrow = Callable[[QuerySet[Any], str], QuerySet[Any]]


@dataclass(frozen=True)
class Parameter:
    """One query parameter: what it does to a list, and what the schema says of it."""

    narrow: Narrow
    """Raises ValueError with what is allowed."""
    description: str
    schema: Mapping[str, Any]


class ListFilter(BaseFilterBackend):
    """Narrows a list by the view's ``parameters``.

    An unknown parameter is refused: a misspelt filter that is ignored would return every row, and
    a program might deactivate them all.
    """

    def filter_queryset(
        self, request: Request, queryset: QuerySet[Any], view: APIView
    ) -> QuerySet[Any]:
        parameters = _parameters_of(view)
        wrong: dict[str, str] = {}
        known = {*parameters, *PAGING, api_settings.URL_FORMAT_OVERRIDE}
        for name, values in request.query_params.lists():
            if name not in known:
                wrong[name] = did_you_mean(name, {*parameters, *PAGING})
            elif len(values) > 1:
                wrong[name] = _("Given more than once.")
        for name, parameter in parameters.items():
            if name in request.query_params and name not in wrong:
                try:
                    queryset = parameter.narrow(queryset, request.query_params[name])
                except ValueError as error:
                    wrong[name] = str(error)
        if wrong:
            raise ValidationError(
                {name: [ErrorDetail(words, "invalid")] for name, words in wrong.items()}
            )
        return queryset

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": parameter.description,
                "schema": dict(parameter.schema),
            }
            for name, parameter in _parameters_of(view).items()
        ]


def _parameters_of(view: Any) -> Mapping[str, Parameter]:
    found: Mapping[str, Parameter] = view.parameters.get(view.action, {})
    return found


# --- kinds of parameters ----------------------------------------------------------------------


def one_of(column: str, choices: list[str], description: str) -> Parameter:
    def narrow(queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
        if text not in choices:
            raise ValueError(_("One of: %s.") % ", ".join(choices))
        return queryset.filter(**{column: text})

    return Parameter(narrow, description, {"type": "string", "enum": choices})


def boolean(column: str, description: str) -> Parameter:
    def narrow(queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
        # Python's requests writes True.
        if text.lower() not in ("true", "false"):
            raise ValueError(_("true or false."))
        # Not "=": Django 5.2 writes that as a bare column, for which SQLite uses no index.
        return queryset.filter(**{f"{column}__in": [text.lower() == "true"]})

    return Parameter(narrow, description, {"type": "boolean"})


def customer(description: str) -> Parameter:
    """The conversations of one customer, whatever the notation."""

    def narrow(queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
        if not NUMBER.fullmatch(text):
            raise ValueError(_("A number as it is stored, such as +15550100001 (+ is %2B)."))
        # A + that was not escaped arrives as a space.
        typed = f"+{text[1:]}" if text.startswith(" ") else text
        return queryset.filter(customer_key=typed_key(typed, get_settings().default_country_code))

    return Parameter(narrow, description, {"type": "string", "pattern": f"^{NUMBER.pattern}$"})


def number(column: str, description: str) -> Parameter:
    def narrow(queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
        if not NUMBER.fullmatch(text):
            raise ValueError(_("A number as it is stored, such as +15550100001 (+ is %2B)."))
        # A + that was not escaped arrives as a space.
        return queryset.filter(**{column: f"+{text[1:]}" if text.startswith(" ") else text})

    return Parameter(narrow, description, {"type": "string", "pattern": f"^{NUMBER.pattern}$"})


def since(column: str, description: str) -> Parameter:
    def narrow(queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
        moment = _moment(text)
        if moment is None:
            raise ValueError(
                _("A time such as 2026-01-02T03:04:05Z; the + of a zone is written %2B.")
            )
        return queryset.filter(**{f"{column}__gte": max(moment, EPOCH)})

    return Parameter(narrow, description, {"type": "string", "format": "date-time"})


def _moment(text: str) -> datetime | None:
    """In UTC, and one without a zone is UTC."""
    try:
        parsed = parse_datetime(text.strip())
        if parsed is not None and parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=timezone.utc)
        return None if parsed is None else parsed.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _search(queryset: QuerySet[Conversation], text: str) -> QuerySet[Conversation]:
    if "\0" in text:  # PostgreSQL raises an error for it
        raise ValueError(_("Null characters are not allowed."))
    if not USABLE_SEARCH.search(text):
        raise ValueError(_("At least %d digits of a number, or a whole id.") % FEWEST_DIGITS)
    search = parse_search(text)
    if search.hint == "too_many":
        raise ValueError(_("At most %d numbers or ids at once.") % MAX_TERMS)
    found = find(search)
    matching = queryset.filter(found.condition)
    if not found.is_few:
        return matching
    # The few that pass the other filters as well by name: given all of it at once SQLite would
    # walk through all rows of a filter.
    ids = list(matching.order_by("pk").values_list("pk", flat=True))
    return _all_of(queryset).filter(pk__in=ids)


def _all_of(queryset: QuerySet[Any, Any]) -> QuerySet[Any]:
    model: type[Model] = queryset.model
    return model._default_manager.using(queryset.db).all()


CONVERSATIONS = {
    "is_active": boolean("is_active", "Only active ones, or only inactive ones."),
    "status": one_of("status", Status.values, "What the columns add up to."),
    "user_number": customer("The customer's number or address in any notation."),
    "agent_number": number("agent_number", "Our number exactly as it is stored (E.164)."),
    "updated_after": since("updated_at", "Updated by Bland at this time or after it."),
    # The last one: it looks at what the others have left.
    "search": Parameter(
        _search,
        "A customer's number in any notation, its last four or more digits, or a conversation id; "
        f"up to {MAX_TERMS} of them, by comma. Messages are not searched.",
        {"type": "string", "pattern": USABLE_SEARCH.pattern},
    ),
}
UPDATES = {
    "status": one_of(
        "status",
        [status for status in BulkUpdate.Status.values if status != BulkUpdate.Status.DRAFT],
        "How far it is.",
    ),
}
ORDER_STATES = ("in_force", "suspended", "expired", "lifted")


def _order_state(queryset: QuerySet[StandingOrder], text: str) -> QuerySet[StandingOrder]:
    if text not in ORDER_STATES:
        raise ValueError(_("One of: %s.") % ", ".join(ORDER_STATES))
    return queryset.filter(StandingOrder.in_state(text))


ORDERS = {
    "state": Parameter(
        _order_state, "How it stands.", {"type": "string", "enum": list(ORDER_STATES)}
    ),
    "customer": customer("The customer's number or address in any notation."),
}
ITEMS = {"state": one_of("state", BulkUpdateItem.State.values, "What became of it.")}
