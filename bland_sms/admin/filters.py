"""Filters of the conversation list, each over an indexed column and without counting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from django.contrib import admin
from django.db import connections
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import BulkUpdate, BulkUpdateItem, Conversation, ConversationEvent
from ..models.conversation import Status
from ..models.event import day_begins, day_ends
from ..selections import ACTIVITY, ALL, CHANGES, PICKED, event_words, read_event, selection_data
from ..summary import Measure
from ..words import clean_text
from .date_filter import DateFilter, day_of
from .named import last_asked, named_by

BEGAN = "bland_sms_began_at"
"""Attribute of a conversation in the list of those that began in some days: when it did."""
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


class ActivityFilter(DateFilter):
    title = gettext_lazy("last activity")
    parameter_name = "activity"
    column = "last_activity_at"
    days = {"24h": 1, "7d": 7, "30d": 30}
    older = {"older": 30, "older90": 90, "older180": 180}

    @staticmethod
    def choices_in_words() -> list[tuple[str, str]]:
        return [(value, str(label)) for value, label in ACTIVITY.items()]


class OurNumberFilter(admin.SimpleListFilter):
    title = gettext_lazy("our number")
    parameter_name = "our_number"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        # Left to right by characters: a theme may put the words into an attribute, as unfold does.
        found = our_numbers(Conversation.objects.db)
        return [(number, f"\u2066{number}\u2069") for number in found]

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
        return [(value, str(label)) for value, label in CHANGES.items()]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return self.choices_in_words()

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> QuerySet[Conversation]:
        if self.value() == "waiting":
            # The updates are found first, and all the items of finished ones are left alone.
            unsettled = (*BulkUpdate.Status.UNFINISHED, BulkUpdate.Status.CANCELLED)
            of_these = Q(bulk_update__status__in=unsettled)
            items, mostly = _items(BulkUpdateItem.State.OPEN), BulkUpdateItem.State.WAITING
            return last_asked(items, queryset, mostly=mostly, among=of_these)
        if self.value() == "failed":
            # No item fails before its update is started.
            states = (BulkUpdateItem.State.FAILED, BulkUpdateItem.State.UNKNOWN)
            failed = BulkUpdateItem.objects.filter(state__in=states)
            later = BulkUpdateItem.objects.filter(
                conversation_id=OuterRef("conversation_id"), pk__gt=OuterRef("pk")
            ).exclude(state=BulkUpdateItem.State.CANCELLED)
            return last_asked(failed.filter(~Exists(later)), queryset, mostly=states[0])
        return queryset


class EventFilter(admin.SimpleListFilter):
    """The conversations behind a number of the summary: what happened, from which day to which.

    Not offered in the list's own filters: it appears where it is in use.
    """

    title = gettext_lazy("event")
    parameter_name = "event"
    name_by, name_reason = "event_by", "event_reason"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        for name in (self.name_by, self.name_reason):
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1]

    @classmethod
    def parameters(
        cls, kind: str, first: date, last: date, by_us: tuple[str, str] | None = None
    ) -> dict[str, str]:
        """What the address says, such as ``event=deactivated:2026-11-01:2026-11-30``.

        Args:
            by_us: Of deactivations by us: by whom, for which reason; ``""`` is a value too.
        """
        asked = {cls.parameter_name: f"{kind}:{first.isoformat()}:{last.isoformat()}"}
        return (
            asked if by_us is None else {**asked, cls.name_by: by_us[0], cls.name_reason: by_us[1]}
        )

    @classmethod
    def is_of_starts(cls, request: HttpRequest) -> bool:
        meant = read_event(request.GET.get(cls.parameter_name))
        return meant is not None and meant[0] == ConversationEvent.Kind.STARTED

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name, self.name_by, self.name_reason]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        value = request.GET.get(self.parameter_name)
        words = event_words(value)
        if not words:
            return []
        if self.name_by in request.GET:
            words += ", " + (clean_text(request.GET[self.name_by]) or _("an operator"))
        if self.name_reason in request.GET:
            words += ", " + (clean_text(request.GET[self.name_reason]) or _("without a reason"))
        return [(str(value), words)]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """All, and what is chosen; "All" takes the person and the reason away as well."""
        everything, *chosen = super().choices(changelist)
        own = self.expected_parameters()
        yield {**everything, "query_string": changelist.get_query_string(remove=own)}
        for one in chosen:
            yield {**one, "query_string": changelist.get_query_string()}

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> QuerySet[Conversation]:
        meant = read_event(self.value())
        if meant is None:
            return queryset
        kind, first, last = meant
        begins, ends = day_begins(first), day_ends(last)
        if kind == ConversationEvent.Kind.STARTED:
            # Once for each conversation. In this order none but those of the page are read: by
            # their last activity, all that began in these days would have to be sorted.
            began = queryset.filter(events__kind=kind, events__at__gte=begins, events__at__lt=ends)
            return began.annotate(**{BEGAN: F("events__at")})
        if kind == Measure.BY_US:
            items = _items((BulkUpdateItem.State.CHANGED,)).filter(
                bulk_update__is_active=False, finished_at__gte=begins, finished_at__lt=ends
            )
            for name, column in (
                (self.name_by, "requested_by_name"),
                (self.name_reason, "reason"),
            ):
                if name in self.used_parameters:
                    value = clean_text(self.used_parameters[name])
                    items = items.filter(**{f"bulk_update__{column}": value})
            return named_by(items, queryset)
        events = ConversationEvent.objects.filter(kind=kind, at__gte=begins, at__lt=ends)
        return named_by(events, queryset, until=ends)


class StopFilter(admin.SimpleListFilter):
    title = gettext_lazy("stop request")
    parameter_name = "asked_to_stop"

    @staticmethod
    def choices_in_words() -> list[tuple[str, str]]:
        return [("yes", _("Asked to stop"))]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return self.choices_in_words()

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Conversation]
    ) -> QuerySet[Conversation]:
        if self.value() != "yes":
            return queryset
        asked = ConversationEvent.objects.filter(kind=ConversationEvent.Kind.ASKED_TO_STOP)
        return named_by(asked, queryset)


def _items(states: Iterable[str]) -> QuerySet[BulkUpdateItem]:
    """Items of updates that were started."""
    return BulkUpdateItem.objects.filter(
        state__in=list(states), bulk_update__started_at__isnull=False
    )


def _looks(table: str) -> str:
    return f"""
        WITH RECURSIVE known (number) AS (
            SELECT MIN(agent_number) FROM {table} WHERE agent_number > ''
            UNION ALL
            SELECT (SELECT MIN(agent_number) FROM {table} WHERE agent_number > known.number)
            FROM known WHERE known.number IS NOT NULL
        )
        SELECT number FROM known WHERE number IS NOT NULL LIMIT {MOST_NUMBERS}
    """  # noqa: S608  a name of Django's and a number of ours


def our_numbers(using: str) -> list[str]:
    """Our own numbers, by one look into the index for each.

    PostgreSQL and SQLite read all the table for DISTINCT; MariaDB and MySQL know the way, and read
    the whole index for each of the looks instead.
    """
    quote = connections[using].ops.quote_name
    table = quote(Conversation._meta.db_table)
    sql = _looks(table)
    if connections[using].vendor == "mysql":
        columns = f"SELECT DISTINCT agent_number FROM {table} WHERE agent_number > ''"  # noqa: S608
        sql = f"{columns} ORDER BY agent_number LIMIT {MOST_NUMBERS}"
    with connections[using].cursor() as cursor:
        cursor.execute(sql)
        return [number for (number,) in cursor.fetchall()]


def selection_of(request: HttpRequest) -> str:
    """What was selected, as data. Phone numbers stay out: only that there was a search."""
    if request.POST.get("select_across") == "1":
        how = ALL
    elif "_selected_action" in request.POST:
        how = PICKED
    else:
        return ""
    chosen = {
        name: value
        for name, known in (("status", Status.values), ("activity", ACTIVITY), ("change", CHANGES))
        if (value := request.GET.get(name, "")) in known
    }
    for name in ("activity_from", "activity_to"):
        if day := day_of(request.GET.get(name, "")):
            chosen[name] = day.isoformat()
    event = request.GET.get(EventFilter.parameter_name, "")
    chosen["event"] = event if read_event(event) else ""
    chosen["our_number"] = "yes" if request.GET.get(OurNumberFilter.parameter_name) else ""
    chosen["search"] = "yes" if request.GET.get("q", "").strip() else ""
    return selection_data(how, **chosen)
