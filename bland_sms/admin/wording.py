"""The result of an update in words: causes, next steps, and one message for each outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from django.contrib import messages
from django.db.models import Count, Exists, OuterRef
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import sync
from ..models import BulkUpdate, BulkUpdateItem, Conversation, SyncRun
from ..quantities import number_words
from ..reasons import Failure
from .formatting import one_stop
from .sight import Sight

State = BulkUpdateItem.State
COUNT_CAP = 10_000
"""No page counts further than this: a COUNT over a million rows takes longer than the page."""
MOST_GROUPS = 200
MOST_NEW = 1000
"""New conversations that are looked at for customers who have written again."""


class Told(NamedTuple):
    """One message: a level of django.contrib.messages, and a sentence."""

    level: int
    text: str


class CauseCount(NamedTuple):
    """How many items are in one state for one cause."""

    state: str
    number: int
    advice: str
    """Why, and what to do next, in sentences."""


def verb_words(is_active: bool, number: int) -> str:
    """Such as "Deactivate 3,200 conversations"."""
    if is_active:
        words = ngettext("Reactivate %s conversation", "Reactivate %s conversations", number)
    else:
        words = ngettext("Deactivate %s conversation", "Deactivate %s conversations", number)
    return words % number_words(number)


def counts_words(counts: dict[str, int], separator: str = " · ") -> str:
    """Such as "25 changed · 4 failed · 8 waiting"."""
    number = {state: counts.get(state, 0) for state in State.values}
    words = {
        State.CHANGED: ngettext("%s changed", "%s changed", number[State.CHANGED]),
        State.UNCHANGED: ngettext(
            "%s needed no change", "%s needed no change", number[State.UNCHANGED]
        ),
        State.FAILED: ngettext("%s failed", "%s failed", number[State.FAILED]),
        State.UNKNOWN: ngettext("%s unknown", "%s unknown", number[State.UNKNOWN]),
        State.RUNNING: ngettext("%s running", "%s running", number[State.RUNNING]),
        State.WAITING: ngettext("%s waiting", "%s waiting", number[State.WAITING]),
        State.CANCELLED: ngettext("%s left out", "%s left out", number[State.CANCELLED]),
    }
    told = [text % number_words(number[state]) for state, text in words.items() if number[state]]
    return separator.join(told)


def paused_words(*, is_active: bool) -> str:
    return _("reactivation paused") if is_active else _("deactivation paused")


def status_words(bulk_update: BulkUpdate, *, is_paused: bool = False) -> tuple[str, str]:
    """The state of an update: the name of its colour, and its words."""
    if is_paused:
        return bulk_update.status, capfirst(paused_words(is_active=bulk_update.is_active))
    counts = bulk_update.counts_at_rest or {}
    failed = counts.get(State.FAILED, 0) + counts.get(State.UNKNOWN, 0)
    if bulk_update.status == BulkUpdate.Status.FINISHED and failed:
        return str(State.FAILED), _("Finished with failures")
    return bulk_update.status, bulk_update.get_status_display()


def outcome(bulk_update: BulkUpdate, sight: Sight) -> list[Told]:
    """One honest message for each class of outcome that there is."""
    counts = sight.counts(bulk_update)
    told = [
        Told(level, text % {"count": number_words(counts[state])})
        for state, level, text in _settled(bulk_update.is_active, counts)
        if counts[state]
    ]
    told += [_told(count) for count in causes(bulk_update, sight)][:6]
    waiting = counts[State.WAITING] + counts[State.RUNNING]
    if bulk_update.status == BulkUpdate.Status.STOPPED:
        tail = _("%(changed)s changed, %(waiting)s not attempted.") % {
            "changed": number_words(counts[State.CHANGED] + counts[State.UNCHANGED]),
            "waiting": number_words(waiting),
        }
        stop = sight.failure(bulk_update.stop).advice
        told.append(Told(messages.ERROR, f"{stop} {tail}"))
    elif waiting:
        told.append(Told(messages.INFO, _waiting_words(bulk_update, waiting)))
    return told


def _settled(is_active: bool, counts: dict[str, int]) -> list[tuple[str, int, str]]:
    changed, unchanged = counts[State.CHANGED], counts[State.UNCHANGED]
    if is_active:
        done = ngettext(
            "%(count)s conversation reactivated.", "%(count)s conversations reactivated.", changed
        )
        already = ngettext(
            "%(count)s was active already; Bland confirmed it.",
            "%(count)s were active already; Bland confirmed it.",
            unchanged,
        )
    else:
        done = ngettext(
            "%(count)s conversation deactivated.", "%(count)s conversations deactivated.", changed
        )
        already = ngettext(
            "%(count)s was inactive already; Bland confirmed it.",
            "%(count)s were inactive already; Bland confirmed it.",
            unchanged,
        )
    return [
        (State.CHANGED, messages.SUCCESS, done),
        (State.UNCHANGED, messages.INFO, already),
    ]


def causes(bulk_update: BulkUpdate, sight: Sight) -> list[CauseCount]:
    """Why items failed, are unknown, or were left out; the most frequent cause first."""
    groups = (
        sight.items(
            bulk_update.items.filter(state__in=(State.FAILED, State.UNKNOWN, State.CANCELLED))
        )
        .order_by()
        .values_list("state", "error_code", "error_params", "http_status", "message")
        .annotate(number=Count("pk"))
        .order_by("-number")[:MOST_GROUPS]
    )
    merged: dict[tuple[str, str], int] = {}
    for state, *kept, number in groups:
        key = state, sight.failure(Failure.of(*kept)).advice
        merged[key] = merged.get(key, 0) + number
    rank = [State.FAILED, State.UNKNOWN, State.CANCELLED]
    found = [CauseCount(state, number, advice) for (state, advice), number in merged.items()]
    return sorted(found, key=lambda count: (rank.index(State(count.state)), -count.number))


def _told(count: CauseCount) -> Told:
    values = {"count": number_words(count.number), "what": count.advice}
    if count.state == State.FAILED:
        text = ngettext("%(count)s failed: %(what)s", "%(count)s failed: %(what)s", count.number)
        return Told(messages.WARNING, text % values)
    if count.state == State.UNKNOWN:
        text = ngettext(
            "%(count)s unknown, Bland may have done it: %(what)s",
            "%(count)s unknown, Bland may have done it: %(what)s",
            count.number,
        )
        return Told(messages.WARNING, text % values)
    text = ngettext("%(count)s left out: %(what)s", "%(count)s left out: %(what)s", count.number)
    return Told(messages.INFO, text % values)


def _waiting_words(bulk_update: BulkUpdate, waiting: int) -> str:
    text = ngettext(
        "%(count)s is still waiting and stays queued.",
        "%(count)s are still waiting and stay queued.",
        waiting,
    ) % {"count": number_words(waiting)}
    later = (
        bulk_update.items.filter(state=State.WAITING, not_before__isnull=False)
        .order_by("not_before")
        .values_list("not_before", flat=True)
        .first()
    )
    if later is not None:
        when = date_format(timezone.localtime(later), "DATETIME_FORMAT")
        return f"{text} " + one_stop(_("Bland asked us to come back at %s.") % when)
    return f"{text} " + _("Open the update to carry them out.")


def written_again(bulk_update: BulkUpdate, sight: Sight) -> int:
    """Customers for whom Bland opened a new conversation after this update deactivated theirs.

    Looked at from the new conversations, which are few, and not from the items, which may be many.
    """
    if bulk_update.is_active or bulk_update.started_at is None:
        return 0
    deactivated = BulkUpdateItem.objects.filter(
        bulk_update=bulk_update,
        state=State.CHANGED,
        finished_at__lt=OuterRef("created_at"),
        conversation__customer_key=OuterRef("customer_key"),
    )
    newest = (
        Conversation.objects.filter(created_at__gt=bulk_update.started_at, is_active=True)
        .exclude(customer_key="")
        .order_by("-created_at")
        .values_list("pk", flat=True)[:MOST_NEW]
    )
    seen = Conversation.objects.all() if sight.conversations is None else sight.conversations
    found = seen.filter(Exists(deactivated), pk__in=list(newest))
    return found.order_by().values("customer_key").distinct().count()


def sync_words(run: SyncRun, *, with_words: bool) -> tuple[str, int]:
    """What a sync came to, and the level of the message."""
    error = run.failure.told(with_words)
    if run.status == SyncRun.Status.SKIPPED:
        return _("A copy from Bland is running already. Look again in a moment."), messages.INFO
    counts = {name: number_words(getattr(run, name)) for name in ("created", "changed", "failed")}
    if run.status == SyncRun.Status.FINISHED:
        text = _("Copied from Bland: %(created)s new, %(changed)s changed.") % counts
        if not run.failed:
            return text, messages.SUCCESS
        text = _("%(text)s %(failed)s could not be read.") % {"text": text, **counts}
        return text, messages.WARNING
    if run.seen:
        text = _("Not all was copied, so far %(created)s new, %(changed)s changed.") % counts
        return f"{text} {error.advice}", messages.WARNING
    text = _("Nothing was copied, what you see is the last copy.")
    return f"{text} {error.advice}", messages.ERROR


def refresh_words(refreshed: sync.Refreshed, *, with_words: bool) -> list[tuple[int, str]]:
    told: list[tuple[int, str]] = []
    count: Callable[[int], dict[str, str]] = lambda number: {"count": number_words(number)}  # noqa: E731
    if refreshed.copied:
        number = len(refreshed.copied)
        text = ngettext(
            "%(count)s conversation copied from Bland.",
            "%(count)s conversations copied from Bland.",
            number,
        )
        told.append((messages.SUCCESS, text % count(number)))
    if refreshed.missing:
        number = len(refreshed.missing)
        text = ngettext(
            "%(count)s not found under this key. The copy is kept.",
            "%(count)s not found under this key. The copies are kept.",
            number,
        )
        told.append((messages.WARNING, text % count(number)))
    causes: dict[str, int] = {}
    for error in refreshed.failed.values():
        cause = error.failure.told(with_words).advice
        causes[cause] = causes.get(cause, 0) + 1
    for cause, number in causes.items():
        text = ngettext(
            "%(count)s not refreshed: %(cause)s", "%(count)s not refreshed: %(cause)s", number
        )
        told.append((messages.ERROR, text % {**count(number), "cause": cause}))
    return told
