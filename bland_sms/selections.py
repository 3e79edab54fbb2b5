"""What an update was selected by: kept as data, and worded in the language of its reader."""

from __future__ import annotations

import json
from datetime import date

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .models.conversation import Status
from .models.event import day_begins, day_ends
from .quantities import number_words
from .summary import COLUMNS

ACTIVITY = {
    "24h": gettext_lazy("Past 24 hours"),
    "7d": gettext_lazy("Past 7 days"),
    "30d": gettext_lazy("Past 30 days"),
    "older": gettext_lazy("Older than 30 days"),
    "older90": gettext_lazy("Older than 90 days"),
    "older180": gettext_lazy("Older than 180 days"),
}
"""Filters of the list by the last activity, and their labels."""
CHANGES = {"waiting": gettext_lazy("Waiting"), "failed": gettext_lazy("Failed or unknown")}
"""Filters of the list by a requested change, and their labels."""
ALL, PICKED, PASTED = "all", "picked", "pasted"


def read_event(value: str | None) -> tuple[str, date, date] | None:
    """What the filter of the summary's numbers says, such as ``deactivated:2026-11-01:2026-11-30``;
    ``None``: it is no such text."""
    kind, *days = (value or "").split(":")
    try:
        first, last = map(date.fromisoformat, days)
        day_begins(first), day_ends(last)
    except (ValueError, OverflowError):
        return None
    return (kind, first, last) if kind in COLUMNS else None


def event_words(value: str | None) -> str:
    """Such as "Deactivated, 11/01/2026 – 11/30/2026"."""
    meant = read_event(value)
    if meant is None:
        return ""
    kind, first, last = meant
    days = [date_format(day, "SHORT_DATE_FORMAT") for day in sorted({first, last})]
    return f"{COLUMNS[kind]}, {' – '.join(days)}"


def selection_data(how: str, **chosen: str) -> str:
    """As ``BulkUpdate.selection`` keeps it.

    Args:
        how: ``ALL`` that match, ``PICKED`` by hand, or read from a ``PASTED`` list.
        chosen: The filters. Of a search and of our own numbers only that there was one.
    """
    kept = {"how": how, **{name: value for name, value in chosen.items() if value}}
    return json.dumps(kept, separators=(",", ":"))


def is_to_be_kept(kept: str) -> bool:
    """Whether the customers of a pasted list are to get standing orders when it is started."""
    try:
        data = json.loads(kept)
    except ValueError:
        return False
    return isinstance(data, dict) and data.get("how") == PASTED and bool(data.get("keep"))


def selection_words(kept: str) -> str:
    """Such as "All that match status “Active”"; another text stays as it is."""
    try:
        data = json.loads(kept)
    except ValueError:
        return kept
    if not isinstance(data, dict) or data.get("how") not in (ALL, PICKED, PASTED):
        return kept
    if data["how"] == PASTED and str(data.get("lines")).isdecimal():
        number = int(data["lines"])
        text = ngettext("A pasted list of %s line", "A pasted list of %s lines", number)
        text %= number_words(number)
        return _("%s, to be kept inactive") % text if data.get("keep") else text
    labels = (
        ("status", _("status"), dict(Status.choices)),
        ("activity", _("last activity"), ACTIVITY),
        ("change", _("requested change"), CHANGES),
    )
    words = [
        _named(title, known[data[name]])
        for name, title, known in labels
        if isinstance(data.get(name), str) and data[name] in known
    ]
    for name, text in (("activity_from", _("from %s")), ("activity_to", _("until %s"))):
        if data.get(name):
            words.append(f"{_('last activity')} {text % data[name]}")
    happened = event_words(str(data.get("event", "")))
    if happened:
        words.append(_named(_("event"), happened))
    if data.get("our_number"):
        words.append(_("one of our numbers"))
    if data.get("search"):
        words.append(_("a search"))
    filters = ", ".join(words)
    if data["how"] == ALL:
        return _("All that match %s") % filters if filters else _("All conversations")
    return _("Picked by hand from what matches %s") % filters if filters else _("Picked by hand")


def _named(title: str, value: object) -> str:
    """A filter and what was chosen: without a colon, since a label with one stands before it."""
    return _("%(filter)s “%(value)s”") % {"filter": title, "value": value}
