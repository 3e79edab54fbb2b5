"""Filters of the list of standing orders."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import StandingOrder

_STATES = ("in_force", "suspended", "expired", "lifted")


def state_words(state: str) -> str:
    return {
        "in_force": _("In force"),
        "suspended": _("Suspended"),
        "expired": _("Expired"),
        "lifted": _("Lifted"),
    }[state]


class StateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        found = [(state, state_words(state)) for state in ("in_force", "suspended")]
        return [*found, ("ended", _("Ended")), ("review", _("To be reviewed"))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[StandingOrder]
    ) -> QuerySet[StandingOrder]:
        value = self.value()
        if value == "ended":
            return queryset.filter(
                StandingOrder.in_state("lifted") | StandingOrder.in_state("expired")
            )
        if value == "review":
            return queryset.filter(StandingOrder.not_over(), needs_review=True)
        return queryset.filter(StandingOrder.in_state(value)) if value in _STATES else queryset


class MineFilter(admin.SimpleListFilter):
    title = gettext_lazy("author")
    parameter_name = "whose"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("mine", _("Mine"))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[StandingOrder]
    ) -> QuerySet[StandingOrder]:
        return queryset.filter(requested_by=request.user.pk) if self.value() else queryset
