"""The place of a conversation in the list that it was opened from, and its neighbours there."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Q, QuerySet
from django.http import HttpRequest, QueryDict
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from ..models import Conversation, ConversationEvent
from ..quantities import number_words
from .filters import BEGAN
from .launching import FILTERS, OPENED_AT
from .wording import COUNT_CAP

if TYPE_CHECKING:
    from .conversation_base import ConversationBase

NOT_FILTERS = ("p", "all", "e")
Keys = list[tuple[str, bool]]
"""Columns of the order, and whether it is a descending one."""


@dataclass(frozen=True)
class Neighbour:
    """The conversation before or after, in the order of the list."""

    url: str = field(repr=False)  # error trackers keep what templates are given by repr
    number: str = field(repr=False)


@dataclass(frozen=True)
class Place:
    """Where a conversation stands in its list."""

    back: str = field(repr=False)
    """Address of the page of the list that it is on."""
    here: str = field(repr=False)
    """Query string that keeps the list and the place."""
    words: str = ""
    """Such as "3 of 37"."""
    previous: Neighbour | None = None
    next: Neighbour | None = None


def here(request: HttpRequest) -> str:
    """Query string of a conversation's page that keeps the list and the place of the request's."""
    kept = {name: request.GET[name] for name in (FILTERS, OPENED_AT) if request.GET.get(name)}
    return f"?{urlencode(kept)}" if kept else ""


def place_of(
    model_admin: ConversationBase, request: HttpRequest, conversation: Conversation
) -> Place:
    """Where a conversation stands; the same cost at any place: no row before it is skipped over.

    The neighbours are known also where the conversation itself has left the list, as one does that
    was deactivated and was opened from the list of the active ones.
    """
    opened_at = _opened_at(request) or conversation.last_activity_at
    kept = {FILTERS: request.GET[FILTERS]} if request.GET.get(FILTERS) else {}
    query = f"?{urlencode({**kept, OPENED_AT: opened_at.isoformat()})}"
    filters = QueryDict(request.GET.get(FILTERS, ""), mutable=True)
    for name in NOT_FILTERS:
        filters.pop(name, None)
    asked = copy(request)
    # One of its own, as it is in any request: other people's classes change it, and lock it again.
    asked.GET = QueryDict(filters.urlencode())
    try:
        changelist = model_admin.get_changelist_instance(asked)
    except (IncorrectLookupParameters, DisallowedModelAdminLookup):
        return Place(_list_url(model_admin, QueryDict(mutable=True)), query)
    rows: QuerySet[Conversation] = changelist.queryset
    keys = _keys(rows)
    if not keys:  # a host's order that no place can be told in
        return Place(_list_url(model_admin, filters), query)
    values = {name: _value(conversation, name, opened_at) for name, _is_descending in keys}
    before = rows.filter(_beyond(keys, values, is_forward=False))
    after = rows.filter(_beyond(keys, values, is_forward=True))
    words, total = "", changelist.paginator.count
    is_capped = getattr(changelist.paginator, "is_capped", False)
    if rows.filter(pk=conversation.pk).exists():
        number = before.order_by()[:COUNT_CAP].count() + 1
        filters["p"] = str((min(number, COUNT_CAP) - 1) // changelist.list_per_page + 1)
        words = _("%(place)s of %(total)s") % {
            "place": number_words(min(number, COUNT_CAP), is_capped=number > COUNT_CAP),
            "total": number_words(total, is_capped=is_capped),
        }
    else:
        words = _("No longer in this list (%s)") % number_words(total, is_capped=is_capped)
    if filters.get("p") == "1":
        del filters["p"]
    return Place(
        back=_list_url(model_admin, filters),
        here=query,
        words=words,
        previous=_first(model_admin, before.reverse(), kept),
        next=_first(model_admin, after, kept),
    )


def _opened_at(request: HttpRequest) -> datetime | None:
    try:
        moment = parse_datetime(request.GET.get(OPENED_AT, ""))
    except ValueError:
        return None
    return moment if moment is not None and timezone.is_aware(moment) else None


def _value(conversation: Conversation, name: str, opened_at: datetime) -> Any:
    """Where it stands in the list, or stood when it was opened from there."""
    if name == "last_activity_at":
        return opened_at
    if name == BEGAN:
        began = conversation.events.filter(kind=ConversationEvent.Kind.STARTED)
        return began.values_list("at", flat=True).first() or opened_at
    return getattr(conversation, name)


def _list_url(model_admin: ConversationBase, filters: QueryDict) -> str:
    url = reverse(
        f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}_changelist",
        current_app=model_admin.admin_site.name,
    )
    return f"{url}?{filters.urlencode()}" if filters else url


def _keys(rows: QuerySet[Conversation]) -> Keys:
    """The columns that a list is ordered by; none where one of them is no plain column."""
    keys: Keys = []
    for one in rows.query.order_by:
        if not isinstance(one, str):
            return []
        name = one.removeprefix("-")
        if name == BEGAN:
            keys.append((name, one.startswith("-")))
            continue
        try:
            field: Any = rows.model._meta.get_field(
                rows.model._meta.pk.name if name == "pk" else name
            )
        except FieldDoesNotExist:
            return []
        if not field.concrete or field.null:  # databases sort NULL at one end or the other
            return []
        if field.attname not in dict(keys):
            keys.append((field.attname, one.startswith("-")))
    return keys


def _beyond(keys: Keys, values: dict[str, Any], *, is_forward: bool) -> Q:
    """Rows after these values in an order, or before them.

    Its first part, which the rest implies, lets each database begin at the place in the index.
    """
    condition = Q()
    for name, is_descending in reversed(keys):
        test = "lt" if is_descending is is_forward else "gt"
        tied = Q(**{name: values[name]}) & condition if condition else None
        condition = Q(**{f"{name}__{test}": values[name]})
        condition = condition | tied if tied is not None else condition
    name, is_descending = keys[0]
    test = "lte" if is_descending is is_forward else "gte"
    return Q(**{f"{name}__{test}": values[name]}) & condition


def _first(
    model_admin: ConversationBase, rows: QuerySet[Conversation], kept: dict[str, str]
) -> Neighbour | None:
    found = rows.values_list("pk", "user_number")[:1]
    for pk, number in found:
        url = reverse(
            f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}_change",
            args=[quote(pk)],
            current_app=model_admin.admin_site.name,
        )
        return Neighbour(f"{url}?{urlencode(kept)}" if kept else url, number or pk)
    return None
