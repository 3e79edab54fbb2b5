"""What one person may see of an update: its conversations, their numbers, and Bland's own words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.admin import AdminSite
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import ngettext

from .. import updates
from ..models import BulkUpdate, BulkUpdateItem, Conversation
from ..quantities import number_words
from ..reasons import Failure
from ..visible import Visible, shown_by, visible_items

State = BulkUpdateItem.State


def may_read_words(request: HttpRequest) -> bool:
    """Whether this person may read Bland's own words, which may quote what people wrote."""
    return request.user.has_perm(f"{Conversation._meta.app_label}.view_transcript")


@dataclass(frozen=True)
class Sight:
    """The one place that decides what an update shows to a person, and what they may touch."""

    conversations: Visible
    """Those that the site's admin of conversations shows to this person. ``None``: all."""
    with_numbers: bool
    """Whether they may see conversations, and so the numbers of customers."""
    with_words: bool

    def items(self, items: QuerySet[BulkUpdateItem]) -> QuerySet[BulkUpdateItem]:
        return visible_items(items, self.conversations)

    def counts(self, bulk_update: BulkUpdate) -> dict[str, int]:
        """Items by state; of these conversations only."""
        if self.conversations is None:
            return bulk_update.known_counts()
        return bulk_update.counts(self.items(bulk_update.items.all()))

    def hidden(self, bulk_update: BulkUpdate, counts: dict[str, int]) -> int:
        """How many conversations of an update this person may not see."""
        if self.conversations is None:
            return 0
        return max(0, sum(bulk_update.known_counts().values()) - sum(counts.values()))

    def numbers(self, items: Iterable[BulkUpdateItem]) -> dict[str, str]:
        """The customers' numbers by conversation; none for those who may not see any."""
        if not self.with_numbers:
            return {}
        ids = [item.conversation_id for item in items]
        return dict(Conversation.objects.filter(pk__in=ids).values_list("pk", "user_number"))

    def failure(self, failure: Failure) -> Failure:
        return failure.told(self.with_words)

    def may_drive(self, bulk_update: BulkUpdate) -> bool:
        """Whether nothing that is still to be asked is hidden from this person."""
        unsettled = (State.WAITING, State.RUNNING)
        return not updates.has_hidden(bulk_update, unsettled, self.conversations)


def sight_of(request: HttpRequest, site: AdminSite) -> Sight:
    """What the person of a request may see on an admin site.

    What the site's admin of conversations does not show is not shown, counted by state or changed
    by the pages of updates either.
    """
    admin = site._registry.get(Conversation)
    permission = f"{Conversation._meta.app_label}.view_conversation"
    if admin is None:
        may_see, conversations = request.user.has_perm(permission), None
    else:
        may_see, conversations = admin.has_view_permission(request), shown_by(admin, request)
    return Sight(
        conversations=conversations, with_numbers=may_see, with_words=may_read_words(request)
    )


def hidden_items_words(number: int) -> str:
    """Such as "and 3 that you may not see"; ``""`` where all are seen."""
    if not number:
        return ""
    text = ngettext(
        "and %(number)s that you may not see", "and %(number)s that you may not see", number
    )
    return text % {"number": number_words(number)}
