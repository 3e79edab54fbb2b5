"""Which conversations a person may see: those that the host's admin shows them, at every door."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from .models import BulkUpdateItem, Conversation

Visible = QuerySet[Conversation] | None
"""The conversations that a person may see. ``None``: all of them."""


def shown_by(admin: Any, request: HttpRequest) -> Visible:
    """Those that an admin of conversations shows in a request.

    A host's admin may narrow ``get_queryset``, such as to one team's numbers.
    """
    queryset: QuerySet[Conversation] = admin.get_queryset(request)
    if queryset.query.is_sliced or queryset.query.combinator:
        # Neither can be narrowed any further.
        ids = list(queryset.values_list("pk", flat=True))
        return Conversation.objects.filter(pk__in=ids)
    return queryset if is_narrowed(queryset) else None


def is_narrowed(queryset: QuerySet[Conversation]) -> bool:
    """Whether a queryset may leave rows out. Without it no page needs to look at the rows."""
    query = queryset.query
    return bool(query.where or len(query.alias_map) > 1)


def visible_items(items: QuerySet[BulkUpdateItem], visible: Visible) -> QuerySet[BulkUpdateItem]:
    """Those of the items of updates whose conversations are visible."""
    if visible is None:
        return items
    return items.filter(conversation_id__in=visible.order_by().values("pk"))


def shown_to(request: HttpRequest) -> Visible:
    """Those that the admin shows to the user of a request that came by another door.

    Of several admin sites those count that this user may enter, and each shows what it shows. Who
    is staff but may enter none in this request, such as without the second factor, sees what all of
    them show. An account that is no staff is a program's: no admin was written for it.
    """
    if not apps.is_installed("django.contrib.admin"):
        return None
    from django.contrib.admin.sites import all_sites

    sites = [site for site in all_sites if site.is_registered(Conversation)]
    entered = [site for site in sites if site.has_permission(request)]
    if not entered and not getattr(request.user, "is_staff", False):
        return None
    shown = [shown_by(site.get_model_admin(Conversation), request) for site in entered or sites]
    parts = [one for one in shown if one is not None]
    if not parts or (entered and len(parts) < len(shown)):
        return None
    if len(parts) == 1:
        return parts[0]
    condition = Q()
    for part in parts:
        one = Q(pk__in=part.order_by().values("pk"))
        condition = condition | one if entered else condition & one
    return Conversation.objects.filter(condition)
