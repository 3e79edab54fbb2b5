"""Filters of the list of updates: by whom, from where, when, and with what outcome."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import BulkUpdate, BulkUpdateItem
from .date_filter import DateFilter

State = BulkUpdateItem.State
Status = BulkUpdate.Status
NEWEST = 1000
"""Updates whose requesters are offered: DISTINCT would read the whole table."""
MINE, OPERATOR = "mine", "operator"


class WhoseFilter(admin.SimpleListFilter):
    title = gettext_lazy("requester")
    parameter_name = "whose"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        newest = model_admin.get_queryset(request).order_by("-pk")[:NEWEST]
        people = dict(newest.values_list("requested_by", "requested_by_name"))
        found = [
            (str(pk), name) for pk, name in people.items() if pk not in (None, request.user.pk)
        ]
        if None in people:
            found.append((OPERATOR, _("An operator")))
        return [(MINE, _("Mine")), *sorted(found, key=lambda one: one[1].lower())]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[BulkUpdate]
    ) -> QuerySet[BulkUpdate]:
        value = self.value()
        if value == OPERATOR:
            return queryset.filter(requested_by=None)
        if value == MINE:
            return queryset.filter(requested_by=request.user.pk)
        known: set[Any] = {key for key, _name in self.lookup_choices} & {value}
        return queryset.filter(requested_by__in=known) if known else queryset


class StartedFilter(DateFilter):
    title = gettext_lazy("start date")
    parameter_name = "started"
    column = "started_at"
    days = {"today": 0, "7d": 7, "30d": 30}

    @staticmethod
    def choices_in_words() -> list[tuple[str, str]]:
        return [
            ("today", _("Today")),
            ("7d", _("Past 7 days")),
            ("30d", _("Past 30 days")),
        ]


class OutcomeFilter(admin.SimpleListFilter):
    title = gettext_lazy("outcome")
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("running", _("Not finished yet")),
            ("stopped", _("Stopped")),
            ("failures", _("With failures")),
            ("cancelled", _("Cancelled")),
            ("undone", _("Undone")),
        ]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[BulkUpdate]
    ) -> QuerySet[BulkUpdate]:
        value = self.value()
        if value == "running":
            return queryset.filter(status__in=Status.UNFINISHED)
        if value in (Status.STOPPED, Status.CANCELLED):
            return queryset.filter(status=value)
        if value == "failures":
            failed = BulkUpdateItem.objects.filter(
                bulk_update=OuterRef("pk"), state__in=(State.FAILED, State.UNKNOWN)
            )
            return queryset.filter(Exists(failed))
        if value == "undone":
            undoing = BulkUpdate.objects.filter(undo_of=OuterRef("pk"))
            return queryset.filter(
                Exists(undoing.exclude(status__in=(Status.DRAFT, Status.CANCELLED)))
            )
        return queryset
