"""Finds updates by a customer, a conversation or their own number, and marks undone ones."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.contrib.admin import AdminSite
from django.db.models import Q
from django.http import HttpRequest

from ..models import BulkUpdate, BulkUpdateItem
from ..search import Search, find, parse_search
from ..updates import undoing
from .launching import seen_updates
from .sight import Sight

UNDONE_BY = "bland_sms_undone_by"
"""Attribute of a row of the list: the number of the update that undid it, and whether whoever
looks may open that one."""
_OWN_NUMBER = re.compile(r"\s*#?\s*(\d{1,18})\s*", re.ASCII)


def search_condition(text: str, sight: Sight) -> tuple[Q, str]:
    """Which updates a text asks for, and why none can be found: ``too_short``, ``too_many``,
    ``too_wide`` (too many conversations match), or ``""``.

    Customers are found for who may see their numbers; conversations only where they may be seen.
    """
    search = parse_search(text)
    own = _OWN_NUMBER.fullmatch(text)
    condition = Q(pk__in=[int(own[1])] if own else [])
    if not sight.with_numbers:
        search = Search(tuple(term for term in search.terms if term.is_id and not term.ending))
    found = find(search)
    if found.ids is None:
        return condition, "too_wide"
    ids = sorted(found.ids)
    if ids and sight.conversations is not None:
        ids = list(sight.conversations.filter(pk__in=ids).order_by().values_list("pk", flat=True))
    if ids:
        items = BulkUpdateItem.objects.filter(conversation_id__in=ids)
        condition |= Q(pk__in=items.order_by().values("bulk_update_id"))
    return condition, "" if own else search.hint


def add_undone_by(request: HttpRequest, site: AdminSite, rows: Iterable[BulkUpdate]) -> None:
    """Set :data:`UNDONE_BY` on the rows of one page, by two queries at most."""
    by_pk = {row.pk: row for row in rows}
    found = dict(undoing(by_pk).order_by("pk").values_list("undo_of_id", "pk"))
    seen = seen_updates(request, site, found.values())
    for undone, number in found.items():
        setattr(by_pk[undone], UNDONE_BY, (number, number in seen))
