"""How our admin pages show a time, a number and a text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib.admin import display
from django.db.models import Model
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from ..payloads import EPOCH
from ..quantities import number_words


def shown_time(moment: datetime | None) -> SafeString | str:
    """How long ago, with the exact time: to hover over, in print, on a touch screen."""
    if moment is None or moment == EPOCH:
        return _("unknown")
    return format_html(
        '<time class="bland-sms-time" datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        exact_time(moment),
        ago(moment),
    )


def exact_time(moment: datetime) -> str:
    """Such as "Nov. 29, 2026, 9:07 p.m. UTC"."""
    local = timezone.localtime(moment)
    return f"{date_format(local, 'DATETIME_FORMAT')} {local.tzname()}"


_BIDI_CONTROLS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def shown_text(text: str) -> str:
    """What people wrote, without the characters that turn the rest of the page around."""
    return text.translate(_BIDI_CONTROLS)


class Unlogged:
    """A text or number for a template, which shows it as it is. Error trackers keep the values
    that a template is given, strings as they are and any other by ``repr``: this one's is a mask.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text  # a SafeString stays one

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "[text]"


def ago(moment: datetime) -> str:
    """Such as "4 minutes ago"."""
    if (timezone.now() - moment).total_seconds() < 60:
        return _("just now")
    return _("%(time)s ago") % {"time": timesince(moment, depth=1)}


def clock(moment: datetime) -> str:
    """A time of today as a clock shows it, any other with its date."""
    local = timezone.localtime(moment)
    is_today = local.date() == timezone.localdate()
    return date_format(local, "TIME_FORMAT" if is_today else "SHORT_DATETIME_FORMAT")


def one_stop(sentence: str) -> str:
    """A sentence whose last word is a time, such as "9:07 p.m.", which ends in a stop itself."""
    return sentence[:-1] if sentence.endswith("..") else sentence


def shown_count(number: int | None) -> str:
    """A count of Bland's, which may not have told it."""
    return _("not told") if number is None else number_words(number)


def quantity(model: type[Model], name: str) -> Callable[[Any, Model], str]:
    """A column whose digits are grouped as on any other page of ours; Django's own are not."""
    field: Any = model._meta.get_field(name)

    @display(description=field.verbose_name)
    def shown(self: Any, row: Model) -> str:
        return shown_count(getattr(row, name))

    return shown


def shown_number(number: str) -> SafeString:
    """A phone number, left to right also on a page that runs from right to left."""
    return format_html('<bdi dir="ltr">{}</bdi>', number or _("no number"))
