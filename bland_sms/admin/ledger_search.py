"""Finds updates by a customer, a conversation or their own number, and marks undone ones; and
orders by their own number."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from django.contrib.admin import AdminSite
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext as _

from ..models import BulkUpdate, BulkUpdateItem
from ..search import Search, find, parse_search
from ..updates import undoing
from .launching import seen_updates
from .sight import Sight

UNDONE_BY = "bland_sms_undone_by"
"""Attribute of a row of the list: the number of the update that undid it, and whether whoever
looks may open that one."""
UPDATE_NAMES, ORDER_NAMES = ("Update %d",), ("Order %d", "Standing order %s")
"""As lists, pages and messages call them; marked for translation there."""
_OWN_NUMBER = re.compile(r"#?\s*(\d{1,18})", re.ASCII)


def own_number(text: str, names: Sequence[str]) -> tuple[int | None, bool]:
    """The number of an update or order, and whether it can be nothing else: "3", "#3", "update 3",
    in the reader's language or in English, since what was copied may be a colleague's."""
    typed = _plain(text)
    for name in (*names, *map(_, names)):
        before, after = re.split("%[ds]", _plain(name))
        bare = typed.removeprefix(before.strip()).removesuffix(after.strip()).strip()
        found = _OWN_NUMBER.fullmatch(bare)
        if found:
            return int(found[1]), bare != typed or bare.startswith("#")
    return None, False


def _plain(text: str) -> str:
    """Without case and accents, which few type into a search."""
    letters = unicodedata.normalize("NFKD", text.strip().casefold())
    return "".join(char for char in letters if not unicodedata.combining(char))


def search_condition(text: str, sight: Sight) -> tuple[Q, str]:
    """Which updates a text asks for, and why none can be found: ``too_short``, ``too_many``,
    ``too_wide`` (too many conversations match), or ``""``.

    Customers are found for who may see their numbers; conversations only where they may be seen.
    """
    own, is_sure = own_number(text, UPDATE_NAMES)
    condition = Q(pk__in=[] if own is None else [own])
    if is_sure:
        return condition, ""
    search = parse_search(text)
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
    return condition, search.hint if own is None else ""


def add_undone_by(request: HttpRequest, site: AdminSite, rows: Iterable[BulkUpdate]) -> None:
    """Set :data:`UNDONE_BY` on the rows of one page, by two queries at most."""
    by_pk = {row.pk: row for row in rows}
    found = dict(undoing(by_pk).order_by("pk").values_list("undo_of_id", "pk"))
    seen = seen_updates(request, site, found.values())
    for undone, number in found.items():
        setattr(by_pk[undone], UNDONE_BY, (number, number in seen))
