"""Forgetting a person: their messages and numbers, wherever we keep them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.apps import apps
from django.db import router, transaction
from django.db.models import F, Q

from .mirror import erase
from .models import BulkUpdate, BulkUpdateItem, Conversation, Message, WebhookDelivery
from .search import parse_search

ERASED = "(erased)"
"""Stands where something was."""
ROWS_PER_STATEMENT = 500
FEWEST_DIGITS = 7
"""So many last digits of a number, written without its country, are still that number."""
_BETWEEN_DIGITS = r"[\s().\-/\u2010-\u2015]{0,3}"


class NotANumberError(ValueError):
    """Not one whole phone number, and nobody's name for themselves on another channel."""


@dataclass
class Forgotten:
    """How many rows of which kind told of the person."""

    conversations: int = 0
    messages: int = 0
    history: int = 0
    """Entries in the admin's History."""
    items: int = 0
    """Items of updates with Bland's words in them."""
    updates: int = 0
    """Updates whose reason or selection named the number."""
    deliveries: int = 0
    """Webhooks with Bland's words in them."""


def forget(number: str, *, dry_run: bool = False) -> Forgotten:
    """Erase whoever has this number, from all tables, in one transaction.

    The conversations stay as rows without a person: their state is still copied and can still
    be changed, but who it was and what was said never comes back. That a number was forgotten
    is kept nowhere, so a conversation that begins later is copied like any other.

    Args:
        number: In any notation; a national one gets ``DEFAULT_COUNTRY_CODE``.
        dry_run: Count only.

    Raises:
        NotANumberError: nothing is erased.
    """
    numbers = _digits(number)
    forgotten = Forgotten()
    with transaction.atomic(using=router.db_for_write(Conversation)):
        whose = Q(user_digits__in=numbers) if numbers else Q(user_number=number.strip())
        ids = list(Conversation.objects.filter(whose).order_by("pk").values_list("pk", flat=True))
        if not ids and not numbers:
            raise NotANumberError(
                "not a phone number: give all its digits, best with + and the country"
            )
        for begin in range(0, len(ids), ROWS_PER_STATEMENT):
            _forget_conversations(ids[begin : begin + ROWS_PER_STATEMENT], forgotten, dry_run)
        forgotten.updates = _mask_reasons(_pattern(numbers or {number.strip()}), dry_run)
    return forgotten


def _digits(number: str) -> frozenset[str]:
    """The number's digits, with and without the default country; none if it is no whole number."""
    terms = parse_search(number).terms
    return terms[0].exact if len(terms) == 1 else frozenset()


def _forget_conversations(ids: Sequence[str], forgotten: Forgotten, dry_run: bool) -> None:
    items = BulkUpdateItem.objects.filter(conversation_id__in=ids).exclude(message="")
    calls = WebhookDelivery.objects.filter(conversation_id__in=ids).exclude(reason="")
    forgotten.items += items.count() if dry_run else items.update(message="")
    forgotten.deliveries += calls.count() if dry_run else calls.update(reason="")
    forgotten.history += _forget_history(ids, dry_run)
    if dry_run:
        forgotten.conversations += len(ids)
        forgotten.messages += Message.objects.filter(conversation__in=ids).count()
    else:
        erased = erase(ids)
        forgotten.conversations += len(erased.conversation_ids)
        forgotten.messages += erased.messages


def _forget_history(ids: Sequence[str], dry_run: bool) -> int:
    if not apps.is_installed("django.contrib.admin"):
        return 0
    from django.contrib.admin.models import LogEntry
    from django.contrib.contenttypes.models import ContentType

    entries = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Conversation), object_id__in=ids
    )
    # MariaDB finds "CONV_1" as well where "conv_1" is asked for, and that is somebody else.
    wanted = set(ids)
    found = [pk for pk, object_id in entries.values_list("pk", "object_id") if object_id in wanted]
    if not dry_run:
        for begin in range(0, len(found), ROWS_PER_STATEMENT):
            some = LogEntry.objects.filter(pk__in=found[begin : begin + ROWS_PER_STATEMENT])
            some.update(object_repr=F("object_id"), change_message=ERASED)
    return len(found)


# --- what staff wrote -------------------------------------------------------------------------


def _pattern(numbers: Collection[str]) -> re.Pattern[str]:
    """Finds a number in any notation: with or without its country, spaces, brackets, dashes."""
    endings = {
        number[begin:]
        for number in numbers
        for begin in range(max(1, len(number) - FEWEST_DIGITS + 1))
    }
    longest_first = sorted(endings, key=len, reverse=True)
    ways = "|".join(_BETWEEN_DIGITS.join(map(re.escape, ending)) for ending in longest_first)
    return re.compile(rf"(?<!\d)[+(]{{0,2}}0{{0,2}}(?:{ways})(?!\d)", re.IGNORECASE)


def _mask_reasons(pattern: re.Pattern[str], dry_run: bool) -> int:
    """Take the number out of what staff wrote about updates; no other table holds such words."""
    written = BulkUpdate.objects.exclude(reason="", selection="").order_by("pk")
    masked = 0
    for pk, *told in written.values_list("pk", "reason", "selection").iterator(chunk_size=1000):
        reason, selection = (_masked(text, pattern) for text in told)
        if [reason, selection] == told:
            continue
        masked += 1
        if not dry_run:
            BulkUpdate.objects.filter(pk=pk).update(reason=reason[:200], selection=selection[:500])
    return masked


def _masked(text: str, pattern: re.Pattern[str]) -> str:
    # Digits of any script, each in the place of its own, so that what is found is where it was.
    folded = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    parts, end = [], 0
    for found in pattern.finditer(folded):
        parts += [text[end : found.start()], ERASED]
        end = found.end()
    return "".join([*parts, text[end:]])
