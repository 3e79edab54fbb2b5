"""Rows of standing orders: their customers' keys, their locks, and what each of them wants."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from datetime import datetime

from django.conf import settings
from django.db import connections
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.encoding import force_bytes

from ..client import by_blands_clock
from ..customers import customer_key
from ..database import batches, using
from ..models import Conversation, StandingOrder
from ..models.standing_order import FINGERPRINT

AFTER_FINGERPRINTS = FINGERPRINT.replace(":", ";")


def wants(order: StandingOrder, row: Conversation) -> bool:
    """Whether an order in force wants this row, of its customer, to be inactive.

    The row's state must be newer than the order, by Bland's clock. An order that begins ahead of
    now was made by a machine whose clock is wrong, and its beginning says nothing.
    """
    if not row.is_active or not keeps(order, row):
        return False
    is_wrong_clock = order.starts_at > timezone.now()
    return is_wrong_clock or row.updated_at > by_blands_clock(order.starts_at)


def active_conversations(orders: Sequence[StandingOrder]) -> list[str]:
    """Ids of what is active now of the customers of orders that were just made."""
    found: list[str] = []
    for some in batches(orders):
        by_key: dict[str, list[StandingOrder]] = {}
        for order in some:
            by_key.setdefault(order.customer_key, []).append(order)
        rows = Conversation.objects.filter(customer_key__in=list(by_key), is_active=True)
        columns = ("customer_key", "agent_number", "human_handoff_at")
        for row in rows.only(*columns).order_by("pk"):
            if any(keeps(order, row) for order in by_key[row.customer_key]):
                found.append(row.pk)
    return list(dict.fromkeys(found))


def keeps(order: StandingOrder, row: Conversation) -> bool:
    """Whether an order in force keeps this conversation, of its customer, inactive."""
    is_spared = order.spare_handed_off and row.human_handoff_at is not None
    return is_about(order, row) and not is_spared


def tells_handoff(row: Conversation) -> bool:
    """Whether its copy tells if a person has taken it over.

    A list does not. Where a conversation that was fetched is silent about it, it counts as no.
    """
    if "human_handoff_at" not in row.older_facts:
        return True
    fetched_at = row.transcript_observed_at
    return fetched_at is not None and fetched_at >= row.observed_at


def is_about(order: StandingOrder, row: Conversation) -> bool:
    """Whether a conversation of the order's customer is with a number of ours that it names."""
    ours = customer_key(order.agent_number)
    return not ours or customer_key(row.agent_number) == ours


def to_milliseconds(moment: datetime) -> datetime:
    """A time as exact as Bland's are: within one millisecond an order counts as the later one."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def fingerprints(keys: Collection[str]) -> dict[str, str]:
    """Keyed fingerprints of customers' keys, by the site's secrets: what is kept of a customer who
    was forgotten and is still to be left alone."""
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return {fingerprint(key, secret): key for secret in secrets for key in keys}


def fingerprint(key: str, secret: str | bytes) -> str:
    named = b"bland_sms.standing:" + force_bytes(secret)
    return FINGERPRINT + hmac.digest(named, key.encode(), "sha256").hex()


def names_of(key: str) -> list[str]:
    """What an order for this customer may stand under."""
    return [key, *fingerprints({key})]


def names_in_use(keys: Collection[str]) -> list[str]:
    """What orders for some of these customers stand under, whatever their state: one look into
    the index for all, and one more where people were forgotten whose orders go on.

    In SQL, since Django takes ten times as long to write the statement as the database to answer.
    By key alone: with their state as well SQLite walks through all orders in force.
    """
    connection = connections[StandingOrder.objects.db]
    table = connection.ops.quote_name(StandingOrder._meta.db_table)
    marks = ", ".join(["%s"] * len(keys))
    # The column sorts by bytes on each database, and ";" follows ":".
    sql = f"""
        SELECT customer_key FROM {table} WHERE customer_key IN ({marks})
        UNION ALL
        SELECT customer_key FROM (
            SELECT customer_key FROM {table} WHERE customer_key >= %s AND customer_key < %s LIMIT 1
        ) kept
    """  # noqa: S608  a name of Django's
    with connection.cursor() as cursor:
        cursor.execute(sql, [*keys, FINGERPRINT, AFTER_FINGERPRINTS])
        found = {name for (name,) in cursor.fetchall()}
    if not any(name.startswith(FINGERPRINT) for name in found):
        return sorted(found)
    kept = StandingOrder.objects.filter(customer_key__in=list(fingerprints(keys)))
    names = {name for name in found if not name.startswith(FINGERPRINT)}
    return sorted({*names, *kept.values_list("customer_key", flat=True)})


def locked(orders: QuerySet[StandingOrder]) -> list[StandingOrder]:
    """The orders with their authors, none of which changes until the transaction ends."""
    alias = using(StandingOrder)
    rows = orders.using(alias).prefetch_related("requested_by").order_by("pk")
    if connections[alias].features.has_select_for_update:
        waiting = orders.using(alias).select_for_update().order_by("pk")
        return list(rows.filter(pk__in=list(waiting.values_list("pk", flat=True))))
    # SQLite has one lock for all, which a write takes before the first read.
    StandingOrder.objects.using(alias).filter(pk=0).update(reason="")
    return list(rows)
