"""What staff are told before an update of many conversations is started."""

from __future__ import annotations

from dataclasses import dataclass

from django import forms
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..conf import get_settings
from ..models import BulkUpdate, Conversation

TICK_OVER = 500
"""Above so many rows a tick box asks once more."""
SAMPLES = 10
ASSUMED_LATENCY_SECONDS = 0.3


class ConfirmForm(forms.Form):
    """The reason, and above :data:`TICK_OVER` rows a tick."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("Optional. It stands with the update for whoever looks later."),
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs={"class": "vTextField", "size": 60, "autocomplete": "off"}),
    )

    def __init__(self, *args: object, tick: str = "", **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        if tick:
            self.fields["sure"] = forms.BooleanField(
                label=tick,
                error_messages={"required": _("Tick the box to confirm the number.")},
            )


@dataclass(frozen=True)
class Preview:
    """A draft in numbers."""

    total: int
    customers: int
    already: int
    """Conversations that have the value here already."""
    newer: int
    """When reactivating: customers who have a newer active conversation."""
    samples: list[Conversation]

    @property
    def to_change(self) -> int:
        return self.total - self.already

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        settings = get_settings()
        rate = settings.max_concurrency / ASSUMED_LATENCY_SECONDS
        if settings.rate_limit is not None:
            rate = min(rate, settings.rate_limit)
        return self.total / rate + 1


def preview(draft: BulkUpdate) -> Preview:
    """Count what a draft would do; a handful of statements, whatever its size."""
    rows = Conversation.objects.filter(Exists(draft.items.filter(conversation=OuterRef("pk"))))
    newer = 0
    if draft.is_active:
        later = Conversation.objects.filter(
            user_number=OuterRef("user_number"),
            is_active=True,
            created_at__gt=OuterRef("created_at"),
        )
        named = rows.exclude(user_number="")
        newer = named.filter(Exists(later)).values("user_number").distinct().count()
    return Preview(
        total=draft.items.count(),
        customers=rows.values("user_number").distinct().count(),
        already=rows.filter(is_active=draft.is_active).count(),
        newer=newer,
        samples=list(rows.order_by("-last_activity_at", "-pk")[:SAMPLES]),
    )


def duration_words(seconds: float) -> str:
    """Such as "about 8 seconds"."""
    if seconds < 90:
        number = max(1, round(seconds))
        return ngettext("about %d second", "about %d seconds", number) % number
    number = round(seconds / 60)
    return ngettext("about %d minute", "about %d minutes", number) % number
