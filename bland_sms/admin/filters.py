"""Filters of the conversation list, each over an indexed column and without counting."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db import connections
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import OPEN_STATES, BulkUpdateItem, Conversation
from ..models.conversation import Status
from ..payloads import clean_text

MOST_NUMBERS = 50
"""Our own numbers that are offered as filters."""


class StatusFilter(admin.SimpleListFilter):
    title = gettext_lazy("status")
    parameter_name = "status"

    @staticmethod
    def choices_in_words() -> list[tuple[str, str]]:
        return [(value, str(label)) for value, label in Status.choices]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return self.choices_in_words()

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> QuerySet[Conversation]:
        value = self.value()
        return queryset.filter(status=value) if value in Status.values else queryset


class ActivityFilter(admin.SimpleListFilter):
    title = gettext_lazy("last activity")
    parameter_name = "activity"
    days = {"24h": 1, "7d": 7, "30d": 30}

    @staticmethod
    def choices_in_words() -> list[tuple[str, str]]:
        return [
            ("24h", _("Past 24 hours")),
            ("7d", _("Past 7 days")),
            ("30d", _("Past 30 days")),
            ("older", _("Older than 30 days")),
        ]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return self.choices_in_words()

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> QuerySet[Conversation]:
        value = self.value()
        if value == "older":
            return queryset.filter(last_activity_at__lt=_days_ago(30))
        if value in self.days:
            return queryset.filter(last_activity_at__gte=_days_ago(self.days[value]))
        return queryset


class OurNumberFilter(admin.SimpleListFilter):
    title = gettext_lazy("our number")
    parameter_name = "our_number"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(number, number) for number in our_numbers(Conversation.objects.db)]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> QuerySet[Conversation]:
        value = self.value()
        # Cleaned as the rows are: PostgreSQL raises an error for NUL in what it is asked for.
        return queryset.filter(agent_number=clean_text(value)) if value else queryset


class ChangeFilter(admin.SimpleListFilter):
    title = gettext_lazy("requested change")
    parameter_name = "change"

    @staticmethod
    def choices_in_words() -> list[tuple[str, str]]:
        return [("waiting", _("Waiting")), ("failed", _("Failed or unknown"))]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return self.choices_in_words()

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> QuerySet[Conversation]:
        if self.value() == "waiting":
            return queryset.filter(pk__in=_items(OPEN_STATES).values("conversation_id"))
        if self.value() == "failed":
            failed = _items((BulkUpdateItem.State.FAILED, BulkUpdateItem.State.UNKNOWN))
            later = BulkUpdateItem.objects.filter(
                conversation_id=OuterRef("conversation_id"), pk__gt=OuterRef("pk")
            ).exclude(state=BulkUpdateItem.State.CANCELLED)
            return queryset.filter(pk__in=failed.filter(~Exists(later)).values("conversation_id"))
        return queryset


def _items(states: Iterable[str]) -> QuerySet[BulkUpdateItem]:
    """Items of updates that were started."""
    return BulkUpdateItem.objects.filter(
        state__in=list(states), bulk_update__started_at__isnull=False
    )


def _days_ago(days: int) -> Any:
    return timezone.now() - timedelta(days=days)


def our_numbers(using: str) -> list[str]:
    """Our own numbers, by one look into the index for each: DISTINCT would read all the table."""
    quote = connections[using].ops.quote_name
    table = quote(Conversation._meta.db_table)
    sql = f"""
        WITH RECURSIVE known (number) AS (
            SELECT MIN(agent_number) FROM {table} WHERE agent_number > ''
            UNION ALL
            SELECT (SELECT MIN(agent_number) FROM {table} WHERE agent_number > known.number)
            FROM known WHERE known.number IS NOT NULL
        )
        SELECT number FROM known WHERE number IS NOT NULL LIMIT {MOST_NUMBERS}
    """  # noqa: S608  a name of Django's and a number of ours
    with connections[using].cursor() as cursor:
        cursor.execute(sql)
        return [number for (number,) in cursor.fetchall()]


def selection_words(request: HttpRequest) -> str:
    """What was selected, in words. Phone numbers stay out: only that there was a search."""
    words = []
    for list_filter in (StatusFilter, ActivityFilter, ChangeFilter):
        value = request.GET.get(list_filter.parameter_name)
        labels = dict(list_filter.choices_in_words())
        if value in labels:
            words.append(f"{list_filter.title}: {labels[value]}")
    if request.GET.get(OurNumberFilter.parameter_name):
        words.append(_("one of our numbers"))
    if request.GET.get("q", "").strip():
        words.append(_("a search"))
    filters = ", ".join(words)
    if request.POST.get("select_across") == "1":
        return _("All that match: %s") % filters if filters else _("All conversations")
    if "_selected_action" in request.POST:
        return _("Picked by hand from: %s") % filters if filters else _("Picked by hand")
    return ""
