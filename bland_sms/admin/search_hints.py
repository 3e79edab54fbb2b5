"""What staff are told of their search: how it was read, and what the filters hide."""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import Conversation
from ..quantities import number_words
from .filters import StatusFilter

LIST_PARAMETERS = {"q", "o", "p", "all", "_changelist_filters"}
"""Parameters of the list that filter nothing."""


def reading_words(reading: Mapping[str, int]) -> str:
    """Such as "Read as 4 endings.": how several terms were understood."""
    if not reading:
        return ""
    number = {kind: reading.get(kind, 0) for kind in ("number", "ending", "id", "address")}
    words = {
        "number": ngettext("%s whole number", "%s whole numbers", number["number"]),
        "ending": ngettext("%s ending", "%s endings", number["ending"]),
        "id": ngettext("%s conversation id", "%s conversation ids", number["id"]),
        "address": ngettext("%s address", "%s addresses", number["address"]),
    }
    told = [text % number_words(number[kind]) for kind, text in words.items() if number[kind]]
    return _("Read as %s.") % ", ".join(told)


def hidden_words(request: HttpRequest, hidden: QuerySet[Conversation]) -> str:
    """Such as "5 more are not active.": what the search finds and the filters leave out."""
    number = hidden.count()
    if not number:
        return ""
    status = request.GET.get(StatusFilter.parameter_name, "")
    label = dict(StatusFilter.choices_in_words()).get(status)
    if label and set(request.GET) - LIST_PARAMETERS == {StatusFilter.parameter_name}:
        text = ngettext(
            "%(number)s more matches but is not %(status)s.",
            "%(number)s more match but are not %(status)s.",
            number,
        )
        return text % {"number": number_words(number), "status": label.lower()}
    text = ngettext(
        "%s more matches, which the filters hide.",
        "%s more match, which the filters hide.",
        number,
    )
    return text % number_words(number)
