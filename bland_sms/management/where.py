"""Which conversations a command means: the filters of the admin's list, as one text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import parse_qsl

from django.db.models import QuerySet
from django.utils import timezone

from ..models import Conversation
from ..models.conversation import Status
from ..search import find, parse_search

_AGE = re.compile(r"(older)?([1-9][0-9]{0,3})(d)?|24h|older", re.ASCII)


class WhereError(ValueError):
    """Not a filter, or not a value of it."""


def conversations_where(text: str) -> QuerySet[Conversation]:
    """Conversations by filters such as ``status=active&last_activity=older90``.

    Raises:
        WhereError: an unknown name or value, or no filter at all: a misspelt one that is ignored
            would name every conversation.
    """
    rows = Conversation.objects.all()
    given = parse_qsl(text.replace("+", "%2B"), keep_blank_values=True)
    if not given:
        raise WhereError("no filter: give at least one, such as status=active")
    seen: set[str] = set()
    for name, value in given:
        if name not in FILTERS:
            near = difflib.get_close_matches(name, FILTERS, n=1, cutoff=0)[0]
            raise WhereError(f"unknown filter {name!r}, did you mean {near!r}?")
        if name in seen:
            raise WhereError(f"{name!r} is given more than once")
        seen.add(name)
        rows = FILTERS[name](rows, value)
    return rows


def _status(rows: QuerySet[Conversation], value: str) -> QuerySet[Conversation]:
    if value not in Status.values:
        raise WhereError(f"status: {value!r} is none of {', '.join(Status.values)}")
    return rows.filter(status=value)


def _last_activity(rows: QuerySet[Conversation], value: str) -> QuerySet[Conversation]:
    found = _AGE.fullmatch(value)
    if found is None or (found[2] and bool(found[1]) == bool(found[3])):
        raise WhereError(f"last_activity: {value!r} is none of 24h, 7d, 30d, older90 and the like")
    if value == "24h":
        return rows.filter(last_activity_at__gte=timezone.now() - timedelta(days=1))
    moment = timezone.now() - timedelta(days=int(found[2] or 30))
    if value.startswith("older"):
        return rows.filter(last_activity_at__lt=moment)
    return rows.filter(last_activity_at__gte=moment)


def _our_number(rows: QuerySet[Conversation], value: str) -> QuerySet[Conversation]:
    if not value:
        raise WhereError("our_number: a number as it is stored, such as +15550190001")
    return rows.filter(agent_number=value)


def _search(rows: QuerySet[Conversation], value: str) -> QuerySet[Conversation]:
    search = parse_search(value)
    if search.hint or not value.strip():
        raise WhereError("q: a number, its last 4 or more digits, or an id; 200 at most")
    return rows.filter(find(search).condition)


FILTERS: dict[str, Callable[[QuerySet[Conversation], str], QuerySet[Conversation]]] = {
    "status": _status,
    "activity": _last_activity,
    "last_activity": _last_activity,
    "our_number": _our_number,
    "q": _search,
}
"""The names that the list's addresses have, and ``last_activity`` as its heading says."""
