"""What staff are told before an update of many conversations is started."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django import forms
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import updates
from ..conf import get_settings
from ..models import BulkUpdate, Conversation
from ..quantities import number_words
from ..words import clean_text
from .base import ActionForm
from .filters import BEGAN
from .lately import seconds_each
from .sight import Sight

TICK_OVER = 500
"""With more rows than this, a tick box asks for confirmation."""
ASSUMED_LATENCY_SECONDS = 0.3
PREVIEW_LIFE = timedelta(minutes=10)
"""So long the numbers of a large draft are those of the moment in which it was selected."""


MOST_REASON = 200


def reason_field(**attributes: object) -> forms.CharField:
    """Why an update is asked for: the same field wherever one is started."""
    return forms.CharField(
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("Optional. It is shown with the update later."),
        max_length=MOST_REASON,
        required=False,
        widget=forms.TextInput(
            attrs={"class": "vTextField", "size": 60, "autocomplete": "off", **attributes}
        ),
    )


class ReasonActionForm(ActionForm):
    """The list's menu of actions, with the reason beside it."""

    reason = reason_field(
        size=20, placeholder=gettext_lazy("optional"), **{"class": "bland-sms-action-reason"}
    )


def given_reason(request: HttpRequest) -> str:
    """The reason that a form was sent with."""
    return clean_text(request.POST.get("reason", "")).strip()[:MOST_REASON]


class ConfirmForm(forms.Form):
    """The reason, and above :data:`TICK_OVER` rows a tick."""

    reason = reason_field()

    def __init__(
        self, *args: object, tick: str = "", needs_reason: bool = False, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        if needs_reason:
            self.fields["reason"].required = True
            self.fields["reason"].help_text = _("It stands with the update and with the orders.")
        if tick:
            self.fields["sure"] = forms.BooleanField(
                label=tick,
                error_messages={"required": _("Tick the box to confirm the number.")},
            )


@dataclass(frozen=True)
class Preview:
    """A draft in numbers."""

    total: int
    """Conversations that the reader may see; the others are left out of the update."""
    hidden: int
    customers: int
    already: int
    """Conversations that have the value here already."""
    newer: int
    """When reactivating: customers who have a newer active conversation."""
    with_numbers: bool
    """Whether the reader may see the customers' numbers."""
    seconds_each: float | None = None
    """How long each took lately; ``None``: not known."""

    @property
    def to_change(self) -> int:
        return self.total - self.already

    @property
    def seconds(self) -> float:
        """About how long it takes: as the last updates did, or else by the settings."""
        if self.seconds_each is not None:
            return self.total * self.seconds_each + 1
        settings = get_settings()
        rate = settings.max_concurrency / ASSUMED_LATENCY_SECONDS
        if settings.rate_limit is not None:
            rate = min(rate, settings.rate_limit)
        return self.total / rate + 1


def preview(draft: BulkUpdate, sight: Sight) -> Preview:
    """What a draft would do: counted now, or when it was selected if it is large."""
    is_fresh = draft.created_at > timezone.now() - PREVIEW_LIFE
    numbers = draft.preview if is_fresh and sight.conversations is None else None
    if not numbers:
        items = sight.items(draft.items.all())
        rows = Conversation.objects.filter(Exists(items.filter(conversation=OuterRef("pk"))))
        numbers = {"total": items.count(), **count_rows(rows, draft.is_active)}
    return Preview(
        **numbers,
        hidden=sight.hidden(draft, {"": numbers["total"]}),
        with_numbers=sight.with_numbers,
        seconds_each=seconds_each(),
    )


def keep_preview(draft: BulkUpdate, selected: QuerySet[Conversation], sight: Sight) -> None:
    """Count a large selection while its rows are at hand.

    Its confirmation is shown several times, and would look up the row of each item again.
    """
    query = selected.query
    is_plain = not (query.is_sliced or query.combinator or query.distinct)
    # A join may name a row twice; that of the list of what began does not.
    is_plain = is_plain and len(query.alias_map) - (BEGAN in query.annotations) < 2
    is_large = draft.items.all()[updates.COUNTED_EACH_TIME :].exists()
    if is_large and is_plain and sight.conversations is None:
        counted = count_rows(selected.order_by(), draft.is_active)
        updates.note_preview(draft, {"total": draft.items.count(), **counted})


def count_rows(rows: QuerySet[Conversation], is_active: bool) -> dict[str, int]:
    """A handful of statements, whatever the number of rows."""
    already = Count("pk", filter=Q(is_active=is_active))
    numbers = rows.aggregate(customers=Count("customer_key", distinct=True), already=already)
    newer = 0
    if is_active:
        later = Conversation.objects.filter(
            customer_key=OuterRef("customer_key"),
            is_active=True,
            created_at__gt=OuterRef("created_at"),
        )
        named = rows.exclude(customer_key="")
        newer = named.filter(Exists(later)).values("customer_key").distinct().count()
    return {**numbers, "newer": newer}


def duration_words(seconds: float) -> str:
    """Such as "about 8 seconds"."""
    if seconds < 90:
        number = max(1, round(seconds))
        return ngettext("about %d second", "about %d seconds", number) % number
    if seconds < 90 * 60:
        number = round(seconds / 60)
        return ngettext("about %d minute", "about %d minutes", number) % number
    number = round(seconds / 3600)
    return ngettext("about %s hour", "about %s hours", number) % number_words(number)
