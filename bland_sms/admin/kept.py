"""Shows on the pages of conversations which standing order keeps them inactive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, QueryDict
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from .. import standing
from ..models import BulkUpdate, Conversation, StandingOrder
from .sight import sight_of

KEPT = "bland_sms_kept"
"""Attribute of a row: the line about the order that keeps it inactive."""
MOST_NAMED = 20
"""Orders on the page of an update."""
MOST_UNDOING = 20
"""Orders that are named before conversations are reactivated."""
CONVERSATION = "conversation"
"""Parameter of the page that stops customers: one of their conversations."""


def orders_of_rows(rows: Collection[Conversation]) -> dict[str, list[StandingOrder]]:
    """The orders that are not over about each of some conversations, by one query."""
    keys = {row.customer_key for row in rows if row.customer_key}
    if not keys:
        return {}
    by_key: dict[str, list[StandingOrder]] = {}
    # By key alone: with their state as well SQLite walks through all orders in force.
    for order in StandingOrder.objects.filter(customer_key__in=sorted(keys)):
        if order.state in ("in_force", "suspended"):
            by_key.setdefault(order.customer_key, []).append(order)
    return {
        row.pk: [one for one in by_key.get(row.customer_key, ()) if standing.is_about(one, row)]
        for row in rows
    }


def undoing_orders(draft: BulkUpdate) -> list[StandingOrder]:
    """The orders in force that deactivate again what a draft reactivates; not more than
    :data:`MOST_UNDOING` of them."""
    if not draft.is_active:
        return []
    ids = draft.items.order_by().values("conversation_id")
    rows = Conversation.objects.filter(pk__in=ids).exclude(customer_key="")
    keys = rows.order_by().values("customer_key")
    orders = StandingOrder.objects.filter(StandingOrder.acting(), customer_key__in=keys)
    found = {order.pk: order for order in orders.order_by("pk")[: MOST_UNDOING + 1]}
    about = rows.filter(customer_key__in={order.customer_key for order in found.values()})
    by_key: dict[str, list[Conversation]] = {}
    for row in about.only("customer_key", "agent_number", "human_handoff_at"):
        by_key.setdefault(row.customer_key, []).append(row)
    return [
        order
        for order in found.values()
        if any(standing.keeps(order, row) for row in by_key.get(order.customer_key, ()))
    ]


def undoing_context(draft: BulkUpdate, site: AdminSite) -> dict[str, Any]:
    """For the page that asks before conversations are reactivated."""
    orders = undoing_orders(draft)
    return {
        "bland_sms_undoing": [
            (_("Order %d") % order.pk, order_url(site, "change", order), kept_words(order))
            for order in orders[:MOST_UNDOING]
        ],
        "bland_sms_undoing_more": len(orders) > MOST_UNDOING,
    }


def add_kept(request: HttpRequest, site: AdminSite, rows: Collection[Conversation]) -> None:
    """Set :data:`KEPT` on the rows of one page that an order keeps inactive."""
    may_see = request.user.has_perm("bland_sms.view_standingorder")
    may_lift = may_see and request.user.has_perm("bland_sms.lift_standingorder")
    found = orders_of_rows(rows)
    for row in rows:
        acting = [order for order in found.get(row.pk, ()) if order.state == "in_force"]
        if acting:
            setattr(row, KEPT, _line(site, acting[0], may_see=may_see, may_lift=may_lift))


def _line(site: AdminSite, order: StandingOrder, *, may_see: bool, may_lift: bool) -> SafeString:
    """The badge and the words, with the way to the order's page, which has the button."""
    line = format_html(
        '<span class="bland-sms-badge bland-sms-kept">{}</span> <span class="bland-sms-reason">{}',
        _("kept inactive"),
        since_words(order) if may_see else "",
    )
    url = order_url(site, "change", order) if may_lift else ""
    if url:
        line = format_html('{}: <a href="{}">{}</a>', line, url, _("Lift"))
    return format_html("{}</span>", line)


def kept_context(request: HttpRequest, site: AdminSite, row: Conversation) -> dict[str, Any]:
    """The lines about orders on the page of a conversation, with Lift, and the way to a new one."""
    may_lift = request.user.has_perm("bland_sms.lift_standingorder")
    may_order = request.user.has_perm(StandingOrder.PERMISSION)
    may_see = may_lift or may_order or request.user.has_perm("bland_sms.view_standingorder")
    orders = orders_of_rows([row]).get(row.pk, []) if may_see else []
    return {
        "bland_sms_orders": [
            {
                "words": kept_words(order),
                "advice": shown_suspension(site, order),
                "url": order_url(site, "change", order),
                "lift_url": order_url(site, "lift", order) if may_lift else "",
            }
            for order in orders
        ],
        "bland_sms_stop_url": (
            stop_url(site, [row.pk]) if may_order and row.customer_key and not orders else ""
        ),
    }


def shown_suspension(
    site: AdminSite, order: StandingOrder, *, with_step: bool = True
) -> SafeString:
    """Why an order is suspended, with a link to what it did where that tells more; or nothing.

    Args:
        with_step: And what to do.
    """
    if order.state != "suspended":
        return SafeString("")
    words = standing.why_suspended(order, with_step=with_step)
    url = order_url(site, "change", order)
    if not (url and standing.tells_what_it_did(order)):
        return conditional_escape(words)
    link = f"{url}#{standing.APPLIED}"
    return format_html('{} <a href="{}">{}</a>.', words, link, standing.see_words())


def order_facts(
    request: HttpRequest, site: AdminSite, bulk_update: BulkUpdate
) -> list[tuple[str, SafeString]]:
    """For the page of an update: the standing orders that it is of."""
    may_see = request.user.has_perm("bland_sms.view_standingorder")
    if bulk_update.source != BulkUpdate.Source.STANDING or not may_see:
        return []
    ids = bulk_update.order_applications.order_by().values("order")
    seen = sight_of(request, site).conversations
    found = standing.visible_orders(StandingOrder.objects.filter(pk__in=ids), seen)
    orders = list(found.order_by("pk")[: MOST_NAMED + 1])
    links = [
        format_html('<a href="{}">{}</a>', url, _("Order %d") % order.pk)
        for order in orders[:MOST_NAMED]
        if (url := order_url(site, "change", order))
    ]
    if not links:
        return []
    more = "" if len(orders) <= MOST_NAMED else ", " + _("and more")
    joined = format_html("{}{}", format_html_join(", ", "{}", ((link,) for link in links)), more)
    return [(_("Standing orders"), joined)]


def order_url(site: AdminSite, name: str, order: StandingOrder) -> str:
    """``""`` on an admin site of the host's that has no orders registered."""
    try:
        return reverse(
            f"admin:bland_sms_standingorder_{name}", args=[order.pk], current_app=site.name
        )
    except NoReverseMatch:
        return ""


def stop_url(site: AdminSite, conversation_ids: Sequence[str]) -> str:
    """The page that stops the customers of some conversations; ``""``: this site has none."""
    query = QueryDict(mutable=True)
    query.setlist(CONVERSATION, list(conversation_ids))
    try:
        url = reverse("admin:bland_sms_standingorder_add", current_app=site.name)
    except NoReverseMatch:
        return ""
    return f"{url}?{query.urlencode()}"


# --- words ----------------------------------------------------------------------------------------


def order_author(order: StandingOrder) -> str:
    if order.source == StandingOrder.Source.RULE and not order.requested_by_name:
        return _("a rule")
    return order.requested_by_name or _("an operator")


def until_words(order: StandingOrder) -> str:
    if order.until is None:
        return _("for good")
    return date_format(timezone.localtime(order.until), "SHORT_DATETIME_FORMAT")


def kept_words(order: StandingOrder) -> str:
    """Such as "Kept inactive since 1 March by dana, for good"."""
    values = _values(order)
    if order.until is None:
        return _("Kept inactive since %(since)s by %(by)s, for good") % values
    return _("Kept inactive since %(since)s by %(by)s, until %(until)s") % values


def since_words(order: StandingOrder) -> str:
    """The same beside the badge, which says what it is about."""
    values = _values(order)
    if order.until is None:
        return _("since %(since)s by %(by)s, for good") % values
    return _("since %(since)s by %(by)s, until %(until)s") % values


def _values(order: StandingOrder) -> dict[str, str]:
    return {
        "since": date_format(timezone.localtime(order.starts_at), "SHORT_DATE_FORMAT"),
        "by": order_author(order),
        "until": until_words(order),
    }
