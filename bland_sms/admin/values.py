"""Bland's JSON as tables of names and values, for people who do not read JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from django.template.defaultfilters import linebreaksbr
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..quantities import number_words
from .formatting import shown_text

ROWS_SHOWN = 200
"""Of one table; Bland may send thousands."""

LONGEST_LIST = 20
"""Of plain values in one row."""

Path = tuple[str, ...]


def value_table(value: Any) -> SafeString | str:
    """A table with one row for each value; one that lies deeper is named by all names above it.

    Such as ``order › items › 2 › price``: a table within a table cannot be read on a phone.
    """
    rows = list(islice(_rows(value), ROWS_SHOWN + 1))
    if [path for path, _one in rows] == [()]:
        return shown_value(value)
    table = format_html(
        '<table class="bland-sms-values"><tbody>{}</tbody></table>',
        format_html_join(
            "\n",
            '<tr><th scope="row">{}</th><td>{}</td></tr>',
            ((_name(path), shown_value(one)) for path, one in rows[:ROWS_SHOWN]),
        ),
    )
    if len(rows) <= ROWS_SHOWN:
        return table
    left_out = sum(1 for _row in _rows(value)) - ROWS_SHOWN
    text = ngettext(
        "%(number)s more value is not shown.", "%(number)s more values are not shown.", left_out
    )
    return format_html('{}<p class="help">{}</p>', table, text % {"number": number_words(left_out)})


def _rows(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each value that holds no others, or is a short list of plain ones, and where it lies."""
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _rows(one, (*path, str(name)))
    elif isinstance(value, list) and not _is_plain(value):
        for number, one in enumerate(value, start=1):
            yield from _rows(one, (*path, str(number)))
    else:
        yield path, value


def _is_plain(values: list[Any]) -> bool:
    """Whether a list is short and holds nothing nested, so that it is one value."""
    nested = any(isinstance(one, (Mapping, list)) for one in values)
    return not nested and len(values) <= LONGEST_LIST


def _name(path: Path) -> SafeString:
    """``<bdi>`` around each part: a name may be of a script that runs from right to left."""
    return format_html_join(" › ", "<bdi>{}</bdi>", ((shown_text(part),) for part in path))


def shown_value(value: Any) -> SafeString | str:
    """One value; a list of plain ones as a list."""
    if value is None:
        return _("nothing")
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list) and value:
        items = format_html_join("", "<li>{}</li>", ((shown_value(one),) for one in value))
        return format_html("<ul>{}</ul>", items)
    if isinstance(value, (str, list, Mapping)) and not value:
        return _("empty")
    if isinstance(value, str):
        return format_html('<div dir="auto">{}</div>', linebreaksbr(shown_text(value)))
    return format_html('<bdi dir="ltr">{}</bdi>', str(value))
