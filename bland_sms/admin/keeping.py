"""The box "and keep them inactive" of a pasted list: standing orders beside the update."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import standing
from ..models import BulkUpdate, Conversation, PastedLine, StandingOrder
from ..quantities import number_words
from ..selections import is_to_be_kept
from .order_form import tell_made
from .sight import Sight
from .wording import verb_words

State = PastedLine.State
NAMED = (State.FOUND, State.ALREADY)


def may_keep(request: HttpRequest) -> bool:
    """Whether this person may make orders of what they paste."""
    names = (StandingOrder.PERMISSION, "bland_sms.view_conversation")
    return request.user.has_perms(names)


def keep_context(draft: BulkUpdate, to_change: int, sight: Sight) -> dict[str, Any]:
    """For the page that asks: what the orders would be, or nothing where the box was not ticked."""
    if not is_to_be_kept(draft.selection):
        return {}
    keys = _rows(draft).values("customer_key")
    customers = keys.distinct().count()
    orders = StandingOrder.objects.filter(
        StandingOrder.acting(), customer_key__in=keys, agent_number=""
    )
    words = ngettext("Keep %s customer inactive", "Keep %s customers inactive", customers)
    words %= number_words(customers)
    if to_change:
        words = _("%(deactivate)s and keep them inactive") % {
            "deactivate": verb_words(False, to_change)
        }
    return {
        "bland_sms_keep": {
            "customers": customers,
            "already": orders.count(),
            "unknown": _unknown(draft, sight).count(),
            "how_long": standing.how_long().words,
            "button": words,
        }
    }


def keep_customers(draft: BulkUpdate, reason: str, request: HttpRequest, sight: Sight) -> None:
    """Make an order for each customer of the list, with the reason of the update.

    Those who are in no copy yet get one as well, if their line is a whole number or address, and
    if the person may see all customers.
    """
    if not may_keep(request):
        raise PermissionDenied
    keys = _rows(draft).values_list("customer_key", flat=True).distinct().order_by("customer_key")
    unknown = _unknown(draft, sight).order_by("number")
    wishes = [standing.Wish(standing.as_typed(key)) for key in keys]
    wishes += [standing.Wish(text) for text in unknown.values_list("text", flat=True)]
    outcomes = standing.make_many(
        wishes,
        reason,
        requested_by=request.user,
        source=StandingOrder.Source.ADMIN,
        visible=sight.conversations,
    )
    # Who is kept inactive already stands in the preview.
    told = [
        (wish, outcome)
        for wish, outcome in zip(wishes, outcomes, strict=True)
        if not (isinstance(outcome, standing.OrderError) and outcome.code == "order_exists")
    ]
    tell_made(request, [wish for wish, _one in told], [outcome for _one, outcome in told])


def _unknown(draft: BulkUpdate, sight: Sight) -> QuerySet[PastedLine]:
    """Lines of customers who are in no copy, for those who may see everybody."""
    lines = draft.pasted_lines.filter(state=State.NOT_FOUND)
    return lines if sight.conversations is None else lines.none()


def _rows(draft: BulkUpdate) -> Any:
    """A conversation of each customer that the list names."""
    named = draft.pasted_lines.filter(state__in=NAMED, conversation__isnull=False)
    rows = Conversation.objects.filter(pk__in=named.order_by().values("conversation"))
    return rows.exclude(customer_key="").order_by()
