"""The lines of a pasted list as the confirm page and the update's page show them, and as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..database import ROWS_AT_ONCE, by_key
from ..models import BulkUpdate, BulkUpdateItem, Conversation, PastedLine
from ..quantities import number_words
from .formatting import shown_number
from .pending import REQUESTED_CHANGE, REQUESTED_VALUE, add_requested_changes
from .sight import Sight, hidden_items_words

State = PastedLine.State
LINES_PER_PAGE = 100
STATE_PARAMETER, PAGE_PARAMETER = "lines", "lines_page"
LINES_HEADER = ("line", "text", "state", "customer", "conversation", "explanation")


@dataclass(frozen=True)
class Choice:
    """One way to choose among the lines: all of them, or those in one state."""

    state: str
    words: str
    query: str
    is_chosen: bool


@dataclass(frozen=True)
class ShownLine:
    """One line for the eyes of one person."""

    line: PastedLine
    state_words: str
    text: str = field(repr=False)
    conversation: Conversation | None
    why: str
    candidates: list[SafeString] = field(repr=False)
    """Of an ambiguous line: the customers to pick from, in order."""


def lines_of(bulk_update: BulkUpdate, request: HttpRequest, sight: Sight) -> QuerySet[PastedLine]:
    """The lines that a person may see: those they pasted, else those of conversations they see."""
    lines = bulk_update.pasted_lines.all()
    if sight.conversations is None or bulk_update.requested_by_id == request.user.pk:
        return lines
    return lines.filter(conversation__in=sight.conversations.order_by().values("pk"))


def lines_context(bulk_update: BulkUpdate, request: HttpRequest, sight: Sight) -> dict[str, Any]:
    """One page of the lines with its filters, or ``{}`` where no list was pasted."""
    seen = lines_of(bulk_update, request, sight)
    counts = dict(
        bulk_update.pasted_lines.order_by().values_list("state").annotate(number=Count("pk"))
    )
    if not counts:
        return {}
    total = sum(counts.values())
    if sight.conversations is not None:
        counts = dict(seen.order_by().values_list("state").annotate(number=Count("pk")))
    chosen = request.GET.get(STATE_PARAMETER, "")
    if chosen not in counts:
        chosen = ""
    rows = seen.filter(state=chosen) if chosen else seen
    paginator = Paginator(rows.order_by("number"), LINES_PER_PAGE)
    paginator.count = counts[chosen] if chosen else sum(counts.values())
    page = paginator.get_page(request.GET.get(PAGE_PARAMETER))
    return {
        "bland_sms_lines_of": bulk_update,
        "bland_sms_lines": _shown(list(page.object_list), bulk_update.is_active, sight),
        "bland_sms_line_choices": _choices(bulk_update, request, counts, chosen),
        "bland_sms_line_chosen": chosen,
        "bland_sms_line_pages": _pages(request, page),
        "bland_sms_lines_hidden": hidden_items_words(total - sum(counts.values())),
        "bland_sms_lines_not_found": counts.get(State.NOT_FOUND, 0),
        "bland_sms_lines_to_pick": counts.get(State.AMBIGUOUS, 0),
    }


def state_words(state: str, is_active: bool) -> str:
    """The name of a state; "already so" says what is so."""
    if state == State.ALREADY:
        return _("Already active") if is_active else _("Already inactive")
    return str(State(state).label)


def _choices(
    bulk_update: BulkUpdate, request: HttpRequest, counts: dict[str, int], chosen: str
) -> list[Choice]:
    total = sum(counts.values())
    text = ngettext("All (%(number)s)", "All (%(number)s)", total)
    words = text % {"number": number_words(total)}
    choices = [Choice("", words, _query(request), not chosen)]
    for state in State.values:
        if counts.get(state):
            name = state_words(state, bulk_update.is_active)
            words = f"{name} ({number_words(counts[state])})"
            query = _query(request, **{STATE_PARAMETER: state})
            choices.append(Choice(state, words, query, chosen == state))
    return choices


def _query(request: HttpRequest, **values: str) -> str:
    """The address's query with another choice of lines."""
    query = request.GET.copy()
    for name in (STATE_PARAMETER, PAGE_PARAMETER):
        query.pop(name, None)
    query.update(values)
    return query.urlencode()


def _pages(request: HttpRequest, page: Any) -> list[tuple[str, str]]:
    """Links to the pages before and after this one: words and query."""
    state = request.GET.get(STATE_PARAMETER)
    kept = {STATE_PARAMETER: state} if state else {}
    found = []
    if page.has_previous():
        number = str(page.previous_page_number())
        found.append((_("Previous lines"), _query(request, **kept, **{PAGE_PARAMETER: number})))
    if page.has_next():
        number = str(page.next_page_number())
        found.append((_("More lines"), _query(request, **kept, **{PAGE_PARAMETER: number})))
    return found


def _shown(lines: list[PastedLine], is_active: bool, sight: Sight) -> list[ShownLine]:
    """Lines with their customers, by three statements; without a number for who may see none."""
    rows = Conversation.objects.all() if sight.conversations is None else sight.conversations
    rows = rows.order_by()
    ids = {line.conversation_id for line in lines if line.conversation_id}
    wanted = [one for line in lines for one in line.candidates]
    ids |= {one["conversation"] for one in wanted if "conversation" in one}
    conversations = {row.pk: row for row in rows.filter(pk__in=ids)} if ids else {}
    found = {line.pk: conversations.get(line.conversation_id or "") for line in lines}
    add_requested_changes(
        row for line in lines if line.state == State.ALREADY and (row := found[line.pk])
    )
    words = [(line, *_words(line, found[line.pk], is_active)) for line in lines]
    if not sight.with_numbers:
        return [ShownLine(line, state, "", None, why, []) for line, state, why in words]
    names = {f"conversation:{pk}": row.user_number or pk for pk, row in conversations.items()}
    keys = {one["customer"] for one in wanted if "customer" in one}
    if keys:
        told = rows.filter(customer_key__in=keys).values_list("customer_key", "user_number")
        names |= {f"customer:{key}": number for key, number in told.distinct()}
    return [
        ShownLine(
            line,
            state,
            line.text,
            found[line.pk],
            why,
            [_candidate(one, names) for one in line.candidates],
        )
        for line, state, why in words
    ]


def _candidate(candidate: dict[str, str], names: dict[str, str]) -> SafeString:
    [(kind, value)] = candidate.items()
    return shown_number(names.get(f"{kind}:{value}", value))


def _words(line: PastedLine, row: Conversation | None, is_active: bool) -> tuple[str, str]:
    """A line's state, and what more there is to say. What is already so and will not stay so is
    told by the mark of the list."""
    if row is not None and getattr(row, REQUESTED_VALUE, is_active) != is_active:
        state, words = getattr(row, REQUESTED_CHANGE)
        if line.state == State.ALREADY and state != BulkUpdateItem.State.FAILED:
            return capfirst(words), _("Another update asked for the opposite.")
    return state_words(line.state, is_active), _why(line)


def _why(line: PastedLine) -> str:
    """What more there is to say about a line."""
    if line.state == State.TWICE:
        return _("The same as line %d.") % (line.same_as or 0)
    if line.state == State.NOT_ALLOWED:
        return _("You may not see the conversations of this customer.")
    if line.state == State.AMBIGUOUS and not line.code:
        return _("Several customers: pick one.")
    if line.state == State.FOUND and line.conversations > 1:
        text = ngettext("%s conversation", "%s conversations", line.conversations)
        return text % number_words(line.conversations)
    return line.failure.advice


def csv_rows(
    bulk_update: BulkUpdate, request: HttpRequest, sight: Sight
) -> Iterator[tuple[Any, ...]]:
    """The lines of a file, a thousand at a time; of one state where the address says so."""
    state = request.GET.get(STATE_PARAMETER)
    lines = lines_of(bulk_update, request, sight).filter(Q(state=state) if state else Q())
    kept = by_key(lines)
    while some := list(islice(kept, ROWS_AT_ONCE)):
        for shown in _shown(some, bulk_update.is_active, sight):
            line, row = shown.line, shown.conversation
            yield (
                line.number,
                shown.text,
                line.state,
                row.user_number if row else "",
                line.conversation_id if row else "",
                shown.why,
            )
