"""The summary page: what happened at the desk, as a picture, a table, and CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import standing, summary
from ..models import Conversation, ConversationEvent
from ..models.conversation import Status
from ..quantities import number_words
from ..summary import COLUMNS, Measure, Numbers, Summary
from ..words import clean_text
from .admin_view import AdminView
from .base import freshness_context
from .csv_export import csv_response
from .filters import EventFilter, StopFilter, our_numbers
from .sight import sight_of
from .status_line import line_context

if TYPE_CHECKING:
    from .conversations import ConversationAdmin

Kind = ConversationEvent.Kind

SERIES = (Kind.STARTED, Kind.HANDED_OFF, Kind.TIMED_OUT, Kind.COMPLETED, Kind.DEACTIVATED)
"""What the picture shows; each has a colour and a shape."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 960, 280, 56, 36, 12
MOST_SHAPES = 62
"""Points of a line that have a shape each; beyond them they would lie on each other."""
MOST_LABELS = 8
ACTIVE = (Status.ACTIVE, Status.HANDED_OFF)
"""The states of a conversation that is active at Bland."""


@dataclass(frozen=True)
class Cell:
    """One number of the table, a link to the list behind it."""

    number: int | None
    """``None``: more than are counted."""
    url: str

    def __str__(self) -> str:
        if self.number == 0:
            return "0"
        words = _("List") if self.number is None else number_words(self.number)
        return format_html('<a href="{}">{}</a>', self.url, words)


@dataclass(frozen=True)
class Row:
    """One line of the table: a period, one of our numbers, or all."""

    label: str
    cells: list[Cell]
    to_hand_off: str
    active: list[Cell] = field(default_factory=list)
    """Of one of our numbers: how many are in each state of ``ACTIVE`` now."""


@dataclass(frozen=True)
class Point:
    """One number in the picture."""

    x: int
    y: int
    label: str


@dataclass(frozen=True)
class Line:
    """One column of the table in the picture."""

    name: str
    label: str
    points: list[Point]
    path: str
    has_shapes: bool


@dataclass(frozen=True)
class Picture:
    """Everything that the template needs to draw it, in whole pixels."""

    lines: list[Line]
    scale: list[tuple[int, int]]
    """Place from the top, and number."""
    labels: list[tuple[int, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


@dataclass(frozen=True)
class Asked:
    """What the address asks for, with what was wrong with it put right."""

    step: str
    first: date
    last: date
    agent_number: str
    problem: str

    @classmethod
    def from_query(cls, query: QueryDict | Mapping[str, str], longest: int) -> Asked:
        """Read the form. What cannot be meant is told, and left out."""
        step = query.get("step", "day")
        step = step if step in summary.STEPS else "day"
        dates: dict[str, date | None] = {}
        problem = ""
        for name in ("from", "to"):
            text = query.get(name, "").strip()
            dates[name] = _date(text)
            if text and dates[name] is None:
                problem = _("Write a day as 2026-11-30.")
        try:
            first, last = summary.days_of(step, dates["from"], dates["to"], longest)
        except ValueError as error:
            problem = str(error)
            first, last = summary.days_of(step, None, None, longest)
        return cls(step, first, last, clean_text(query.get("our_number", "")).strip(), problem)


def _date(text: str) -> date | None:
    try:
        return parse_date(text)
    except ValueError:
        return None


class SummaryView(AdminView):
    """The numbers of a desk. No text of a message and no customer's number is on it."""

    admin: ConversationAdmin
    as_csv = False
    http_method_names = ["get", "head"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not self.admin.has_view_permission(request):
            raise PermissionDenied
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponseBase:
        admin = self.admin
        conversations = sight_of(request, admin.admin_site).conversations
        longest = summary.LONGEST_DAYS
        if conversations is not None:
            longest = summary.LONGEST_NARROWED_DAYS
        asked = Asked.from_query(request.GET, longest)
        found = summary.read(
            asked.step,
            asked.first,
            asked.last,
            agent_number=asked.agent_number,
            conversations=conversations,
            only_periods=self.as_csv,
        )
        if self.as_csv:
            return csv_response(request, "summary.csv", _csv_header(), _csv_rows(found))
        return self._page(request, asked, found, conversations)

    def _page(
        self,
        request: HttpRequest,
        asked: Asked,
        found: Summary,
        conversations: QuerySet[Conversation] | None,
    ) -> HttpResponse:
        admin, is_narrowed = self.admin, conversations is not None
        opts = admin.opts
        site = admin.admin_site.name
        back = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist", current_app=site)
        rows = _Rows(back, asked, found)
        numbers = list(found.by_number) if is_narrowed else our_numbers(Conversation.objects.db)
        query = request.GET.urlencode()
        context = {
            **admin.admin_site.each_context(request),
            **line_context(request, admin.admin_site),
            **freshness_context(request),
            "title": _("Summary"),
            "opts": opts,
            "app_label": opts.app_label,
            "media": admin.media,
            "back": back,
            "asked": asked,
            "steps": [("day", _("by day")), ("week", _("by week")), ("month", _("by month"))],
            "our_numbers": numbers,
            "columns": list(COLUMNS.values()),
            "periods": [*rows.periods()][::-1],
            "total": rows.row(_("All"), found.total, found.first, found.last),
            "numbers": rows.numbers(),
            "active": rows.active_all(),
            "asked_to_stop": _asked_to_stop(back, conversations),
            "active_cap": None
            if found.active_now is not None
            else f"{number_words(summary.ACTIVE_CAP)}+",
            "by_us": [
                (name or _("an operator"), reason, number, rows.by_us_url(name, reason))
                for name, reason, number in found.by_us
            ],
            "picture": picture_of(found),
            "csv_url": "../summary.csv" + (f"?{query}" if query else ""),
            "is_narrowed": is_narrowed,
            "uncounted": found.uncounted,
        }
        return TemplateResponse(request, admin.summary_template, context)


class _Rows:
    """The table's lines, each number with the address of the list behind it."""

    def __init__(self, back: str, asked: Asked, found: Summary) -> None:
        self._back, self._asked, self._found = back, asked, found

    def url(self, kind: str, first: date, last: date, number: str | None = None) -> str:
        kind = Kind.STARTED if kind == Measure.MESSAGES else kind
        return self._list_url(number, **EventFilter.parameters(kind, first, last))

    def by_us_url(self, name: str, reason: str) -> str:
        """What this person deactivated for this reason."""
        found = self._found
        asked = EventFilter.parameters(Measure.BY_US, found.first, found.last, (name, reason))
        return self._list_url(**asked)

    def row(
        self, label: str, numbers: Numbers, first: date, last: date, number: str | None = None
    ) -> Row:
        cells = [
            Cell(numbers.counts[kind], self.url(kind, first, last, number)) for kind in COLUMNS
        ]
        return Row(label, cells, duration_words(numbers.seconds_to_hand_off))

    def periods(self) -> Iterator[Row]:
        for period in self._found.periods:
            label = period_words(self._asked.step, period.first, period.last)
            yield self.row(label, period.numbers, period.first, period.last)

    def numbers(self) -> list[Row]:
        found = self._found
        rows = []
        for number in sorted({*found.by_number, *(found.active_now or {})}):
            counted = found.by_number.get(number, Numbers())
            row = self.row(number, counted, found.first, found.last, number)
            rows.append(replace(row, active=[self._active(status, number) for status in ACTIVE]))
        return rows

    def _active(self, status: str, number: str) -> Cell:
        found = self._found.active_now
        counted = None if found is None else found.get(number, Counter())[status]
        return Cell(counted, self._list_url(number, status=str(status)))

    def active_all(self) -> list[tuple[str, int, str]]:
        """How many are active and with a person now: words, number, address."""
        counted = (self._found.active_now or {}).values()
        return [
            (
                str(status.label),
                sum(counts[status] for counts in counted),
                self._list_url(status=str(status)),
            )
            for status in ACTIVE
        ]

    def _list_url(self, number: str | None = None, **asked: str) -> str:
        query = QueryDict(mutable=True)
        query.update(asked)
        number = self._asked.agent_number if number is None else number
        if number:
            query["our_number"] = number
        return f"{self._back}?{query.urlencode()}"


def _asked_to_stop(back: str, conversations: QuerySet[Conversation] | None) -> tuple[str, str, str]:
    """The customers who wrote STOP: how many, how many of them are not kept inactive, and the
    address of the list of their conversations."""
    number, left = standing.asked_to_stop(conversations)
    words = ngettext("%s customer asked to stop", "%s customers asked to stop", number)
    told = words % number_words(
        min(number, standing.COUNT_CAP), is_capped=number > standing.COUNT_CAP
    )
    words = ngettext(
        "%s of them is not kept inactive by a standing order",
        "%s of them are not kept inactive by a standing order",
        left,
    )
    return told, words % number_words(left), f"{back}?{StopFilter.parameter_name}=yes"


# --- words ------------------------------------------------------------------------------------


def period_words(step: str, first: date, last: date) -> str:
    """A day, week or month in words; a part of a week by its days."""
    if step == "month":
        return date_format(first, "YEAR_MONTH_FORMAT")
    if step == "week" and first != last:
        return (
            f"{date_format(first, 'SHORT_DATE_FORMAT')} – {date_format(last, 'SHORT_DATE_FORMAT')}"
        )
    return date_format(first, "SHORT_DATE_FORMAT")


def duration_words(seconds: int | None) -> str:
    """Such as "5 minutes"; a dash where there was no hand-off."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return ngettext("%(number)d second", "%(number)d seconds", seconds) % {"number": seconds}
    now = timezone.now()
    return timesince(now - timedelta(seconds=seconds), now, depth=1)


# --- CSV --------------------------------------------------------------------------------------


def _csv_header() -> list[str]:
    return ["first_day", "last_day", *(str(kind) for kind in COLUMNS), "seconds_to_hand_off"]


def _csv_rows(found: Summary) -> Iterator[list[Any]]:
    for period in found.periods:
        counts = [period.numbers.counts[kind] for kind in COLUMNS]
        seconds = period.numbers.seconds_to_hand_off
        yield [period.first.isoformat(), period.last.isoformat(), *counts, seconds]


# --- the picture ------------------------------------------------------------------------------


def picture_of(found: Summary) -> Picture:
    """Lines over time, drawn in whole pixels: no number is written in the reader's language."""
    highest = max((p.numbers.counts[kind] for p in found.periods for kind in SERIES), default=0)
    top = _round_up(highest)
    width, height = WIDTH - LEFT - 16, HEIGHT - TOP - BOTTOM
    last = max(1, len(found.periods) - 1)

    def x(place: int) -> int:
        return LEFT + round(width * place / last)

    def y(number: int) -> int:
        return TOP + height - round(height * number / top)

    lines = []
    for kind in SERIES:
        name = str(COLUMNS[kind])
        points = [
            Point(
                x(place),
                y(period.numbers.counts[kind]),
                f"{name}: {number_words(period.numbers.counts[kind])}, "
                f"{period_words(found.step, period.first, period.last)}",
            )
            for place, period in enumerate(found.periods)
        ]
        path = " ".join(f"{point.x},{point.y}" for point in points)
        lines.append(Line(str(kind), name, points, path, len(points) <= MOST_SHAPES))
    every = -(-len(found.periods) // MOST_LABELS)
    labels = [
        (x(place), date_format(period.first, "SHORT_DATE_FORMAT"))
        for place, period in enumerate(found.periods)
        if place % every == 0
    ]
    scale = [(y(top * part // 4), top * part // 4) for part in range(5)]
    return Picture(lines, scale, labels)


def _round_up(number: int) -> int:
    """The next of 4, 8, 20, 40, 80, 200 and so on: four equal steps lead to it."""
    sizes = (int(4 * factor * 10**power) for power in count() for factor in (1, 2, 5))
    return next(size for size in sizes if size >= number)
