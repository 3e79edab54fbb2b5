"""A filter by date: a recent time by a link, or from one day to another by a form."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.translation import gettext as _

ONE_DAY = timedelta(days=1)


class DateFilter(admin.SimpleListFilter):
    """Rows by a column with a time; ``choices_in_words`` names the links."""

    template = "bland_sms/date_filter.html"
    column: ClassVar[str]
    days: ClassVar[dict[str, int]] = {}
    """Of a link: within so many days; 0 is today."""
    older: ClassVar[dict[str, int]] = {}
    """Of a link: before so many days."""

    @staticmethod
    def choices_in_words() -> list[tuple[str, str]]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return self.choices_in_words()

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        for name in (self.name_from, self.name_to):
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1]

    @property
    def name_from(self) -> str:
        return f"{self.parameter_name}_from"

    @property
    def name_to(self) -> str:
        return f"{self.parameter_name}_to"

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name, self.name_from, self.name_to]

    def choices(self, changelist: Any) -> Iterator[Any]:
        own = self.expected_parameters()
        yield {
            "selected": not self.used_parameters,
            "query_string": changelist.get_query_string(remove=own),
            "display": _("Any date"),
        }
        for value, words in self.lookup_choices:
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}, own),
                "display": words,
            }

    @property
    def form_id(self) -> str:
        """Of the form that the fields belong to; a theme may have the filters within another."""
        return f"bland-sms-{self.parameter_name}-dates"

    @property
    def bounds(self) -> list[tuple[str, str, Any]]:
        """The form's fields: name, label, value."""
        return [
            (name, label, self.used_parameters.get(name, ""))
            for name, label in ((self.name_from, _("From")), (self.name_to, _("To")))
        ]

    @property
    def others(self) -> list[tuple[str, str]]:
        """What else the address says, for the form to keep; a page number is another list's."""
        own = {*self.expected_parameters(), "p"}
        return [(name, str(value)) for name, value in self.request.GET.items() if name not in own]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = str(self.value())
        if value in self.days:
            days = self.days[value]
            begin = _days_ago(days) if days else _midnight(timezone.localdate())
            queryset = queryset.filter(**{f"{self.column}__gte": begin})
        if value in self.older:
            queryset = queryset.filter(**{f"{self.column}__lt": _days_ago(self.older[value])})
        first, last = self.day(self.name_from), self.day(self.name_to)
        if first:
            queryset = queryset.filter(**{f"{self.column}__gte": _midnight(first)})
        if last:
            queryset = queryset.filter(**{f"{self.column}__lt": _midnight(last + ONE_DAY)})
        return queryset

    def day(self, name: str) -> date | None:
        """A day from the form; ``None`` where it is none."""
        return day_of(str(self.used_parameters.get(name, "")))


def day_of(text: str) -> date | None:
    """A day from an address; ``None`` where it is none, or so far away that no clock has it."""
    try:
        found = parse_date(text)
    except ValueError:  # such as 31 February
        return None
    return found if found is not None and 1900 < found.year < 9000 else None


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _days_ago(days: int) -> datetime:
    return timezone.now() - timedelta(days=days)
