"""Customers who ask to stop: how many, and the rule ``STOP_WORDS_ORDER`` that makes orders of it,
for staff to review."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from ..client import by_blands_clock
from ..conf import get_settings
from ..database import batches
from ..models import Conversation, ConversationEvent, Message, StandingOrder
from ..stop_words import word_in
from .making import OrderError, Source, as_typed, make

logger = logging.getLogger("bland_sms.standing")

RECENT = timedelta(days=1)
"""What was written earlier was there before the rule was switched on, or before the copy."""
AUTHOR = "rule"
COUNT_CAP = 10_000
"""Conversations whose customers asked to stop are counted no further."""


def asked_to_stop(conversations: QuerySet[Conversation] | None = None) -> tuple[int, int]:
    """Customers who wrote that we shall stop, and how many of them no standing order keeps
    inactive; more than :data:`COUNT_CAP` conversations are not looked at.

    Args:
        conversations: Of these only; ``None``: of all.
    """
    events = ConversationEvent.objects.filter(kind=ConversationEvent.Kind.ASKED_TO_STOP)
    if conversations is not None:
        events = events.filter(conversation__in=conversations.order_by())
    found = events.order_by("-at").values_list("conversation__customer_key", flat=True)
    keys = set(found[: COUNT_CAP + 1]) - {""}
    kept: set[str] = set()
    for some in batches(sorted(keys)):
        orders = StandingOrder.objects.filter(StandingOrder.acting(), customer_key__in=some)
        kept.update(orders.order_by().values_list("customer_key", flat=True))
    return len(keys), len(keys - kept)


def look_for_stop_words(rows: Sequence[Conversation]) -> None:
    """Make orders for the customers of rows that the mirror has just written, if they ask to stop.

    An error here must not harm what was copied: it is logged.
    """
    try:
        if get_settings().stop_words_order:
            _look(rows)
    except Exception:
        logger.exception("no standing order was made of a customer's request to stop")


def _look(rows: Sequence[Conversation]) -> None:
    by_id = {row.pk: row for row in rows}
    asked = ConversationEvent.objects.filter(
        kind=ConversationEvent.Kind.ASKED_TO_STOP,
        conversation_id__in=list(by_id),
        at__gt=by_blands_clock(timezone.now() - RECENT),
    ).order_by("at")
    for event in asked:
        row = by_id[event.conversation_id]
        # The state in which they wrote it counts as newer than the order.
        starts_at = event.at - timedelta(milliseconds=1)
        known = StandingOrder.objects.filter(customer_key=row.customer_key)
        if known.filter(starts_at__gte=starts_at).exists():
            continue  # made of it already, and perhaps lifted since
        with suppress(OrderError):  # one is in force, or nobody knows who wrote it
            make(
                as_typed(row.customer_key),
                _reason(event),
                requested_by_name=AUTHOR,
                source=Source.RULE,
                needs_review=True,
                starts_at=starts_at,
            )


def _reason(event: ConversationEvent) -> str:
    """With the word, as the setting has it, and the time."""
    values = {"at": event.at.strftime("%Y-%m-%d %H:%M UTC")}
    messages = Message.objects.filter(conversation=event.conversation_id, created_at=event.at)
    for text in messages.order_by("pk").values_list("text", flat=True):
        if word := word_in(text):
            return _("The customer wrote “%(word)s”, %(at)s") % {**values, "word": word}
    return _("The customer asked to stop, %s") % values["at"]
