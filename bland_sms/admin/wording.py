"""What became of an update, in the words of staff: causes, next steps, and one message a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from django.contrib import messages
from django.db.models import Count, Exists, OuterRef
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import BulkUpdate, BulkUpdateItem, Conversation, SyncRun
from ..sentences import translated
from ..sync import Refreshed

State = BulkUpdateItem.State
MOST_GROUPS = 200
MOST_NEW = 1000
"""New conversations that are looked at for customers who have written again."""


class Cause(NamedTuple):
    """Why items failed, and what to do next."""

    what: str
    next_step: str


def explain(code: str, http_status: int | None, words: str = "") -> Cause:
    """A failure in plain words. ``words`` are Bland's own."""
    if code == "CONVERSATION_NOT_FOUND":
        return Cause(
            _("Not found under this key (404 CONVERSATION_NOT_FOUND)"),
            _("Deleted at Bland, or another account's. The row is kept; if many, check the key."),
        )
    if http_status == 429:
        return Cause(_("Bland asked us to slow down (429)"), _("Retry in a while."))
    plain = {
        "not_applied": (
            _("Bland answered, but did not change it"),
            _("Retry, or look at the conversation at Bland."),
        ),
        "no_answer": (_("No answer from Bland"), _("Retry in a while.")),
        "bad_answer": (_("Bland's answer made no sense"), _("Retry in a while.")),
        "redirected": (
            _("Bland redirects elsewhere"),
            _("Somebody who runs this site should check the setting BASE_URL."),
        ),
        "not_stored": (_("Done at Bland, but not stored here"), _("Refresh the conversation.")),
        "superseded": (_("A newer update asks for the opposite"), ""),
        "already_queued": (_("Another update does the same already"), ""),
        "cancelled": (_("Cancelled before its turn came"), ""),
    }
    if code in plain:
        return Cause(*plain[code])
    status = f"{http_status} {code}" if http_status and not code.startswith("http_") else ""
    status = status or code.replace("_", " ").upper()
    if http_status is not None and http_status >= 500:
        return Cause(_("Bland had an error of its own (%s)") % status, _("Retry in a while."))
    what = _("Bland refused it (%s)") % status
    return Cause(f"{what}: {translated(words)}" if words else what, "")


def stop_words(bulk_update: BulkUpdate) -> str:
    """Why an update stopped, in a sentence."""
    known = {
        "AUTH_FAILURE": _("Bland refused the key (401)."),
        "outage": _("Bland does not answer."),
    }
    return known.get(bulk_update.stop_code) or translated(bulk_update.stop_message)


class Told(NamedTuple):
    """One message: a level of django.contrib.messages, and a sentence."""

    level: int
    text: str


class CauseCount(NamedTuple):
    """How many items are in one state for one cause."""

    state: str
    number: int
    cause: Cause


def number_words(number: int) -> str:
    """A number as people of the reader's language group its digits."""
    return number_format(number, force_grouping=True)


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
        State.UNCHANGED: ngettext("%s already so", "%s already so", number[State.UNCHANGED]),
        State.FAILED: ngettext("%s failed", "%s failed", number[State.FAILED]),
        State.UNKNOWN: ngettext("%s unknown", "%s unknown", number[State.UNKNOWN]),
        State.RUNNING: ngettext("%s running", "%s running", number[State.RUNNING]),
        State.WAITING: ngettext("%s waiting", "%s waiting", number[State.WAITING]),
        State.CANCELLED: ngettext("%s left out", "%s left out", number[State.CANCELLED]),
    }
    told = [text % number_words(number[state]) for state, text in words.items() if number[state]]
    return separator.join(told)


def outcome(bulk_update: BulkUpdate) -> list[Told]:
    """One honest message for each class of outcome that there is."""
    counts = bulk_update.known_counts()
    told = [
        Told(level, text % {"count": counts[state]})
        for state, level, text in _settled(bulk_update.is_active, counts)
        if counts[state]
    ]
    told += [_told(count) for count in causes(bulk_update)][:6]
    waiting = counts[State.WAITING] + counts[State.RUNNING]
    if bulk_update.status == BulkUpdate.Status.STOPPED:
        tail = _("%(changed)d changed, %(waiting)d not attempted.") % {
            "changed": counts[State.CHANGED] + counts[State.UNCHANGED],
            "waiting": waiting,
        }
        told.append(Told(messages.ERROR, f"{stop_words(bulk_update)} {tail}"))
    elif waiting:
        told.append(Told(messages.INFO, _waiting_words(bulk_update, waiting)))
    return told


def _settled(is_active: bool, counts: dict[str, int]) -> list[tuple[str, int, str]]:
    changed, unchanged = counts[State.CHANGED], counts[State.UNCHANGED]
    if is_active:
        done = ngettext(
            "%(count)d conversation reactivated.", "%(count)d conversations reactivated.", changed
        )
        already = ngettext(
            "%(count)d was active already; Bland confirmed it.",
            "%(count)d were active already; Bland confirmed it.",
            unchanged,
        )
    else:
        done = ngettext(
            "%(count)d conversation deactivated.", "%(count)d conversations deactivated.", changed
        )
        already = ngettext(
            "%(count)d was inactive already; Bland confirmed it.",
            "%(count)d were inactive already; Bland confirmed it.",
            unchanged,
        )
    return [
        (State.CHANGED, messages.SUCCESS, done),
        (State.UNCHANGED, messages.INFO, already),
    ]


def causes(bulk_update: BulkUpdate) -> list[CauseCount]:
    """Why items failed, are unknown, or were left out; the most frequent cause first."""
    groups = (
        bulk_update.items.filter(state__in=(State.FAILED, State.UNKNOWN, State.CANCELLED))
        .order_by()
        .values_list("state", "error_code", "http_status", "message")
        .annotate(number=Count("pk"))
        .order_by("-number")[:MOST_GROUPS]
    )
    merged: dict[tuple[str, Cause], int] = {}
    for state, code, http_status, words, number in groups:
        cause = explain(code, http_status, words)
        if state == State.CANCELLED and words:
            cause = Cause(f"{cause.what} ({translated(words)})", cause.next_step)
        merged[(state, cause)] = merged.get((state, cause), 0) + number
    rank = [State.FAILED, State.UNKNOWN, State.CANCELLED]
    found = [CauseCount(state, number, cause) for (state, cause), number in merged.items()]
    return sorted(found, key=lambda count: (rank.index(State(count.state)), -count.number))


def _told(count: CauseCount) -> Told:
    values = {
        "count": count.number,
        "what": f"{count.cause.what}. {count.cause.next_step}".strip(),
    }
    if count.state == State.FAILED:
        text = ngettext("%(count)d failed: %(what)s", "%(count)d failed: %(what)s", count.number)
        return Told(messages.WARNING, text % values)
    if count.state == State.UNKNOWN:
        text = ngettext(
            "%(count)d unknown, Bland may have done it: %(what)s",
            "%(count)d unknown, Bland may have done it: %(what)s",
            count.number,
        )
        return Told(messages.WARNING, text % values)
    text = ngettext("%(count)d left out: %(what)s", "%(count)d left out: %(what)s", count.number)
    return Told(messages.INFO, text % values)


def _waiting_words(bulk_update: BulkUpdate, waiting: int) -> str:
    text = ngettext(
        "%(count)d is still waiting and stays queued.",
        "%(count)d are still waiting and stay queued.",
        waiting,
    ) % {"count": waiting}
    later = (
        bulk_update.items.filter(state=State.WAITING, not_before__isnull=False)
        .order_by("not_before")
        .values_list("not_before", flat=True)
        .first()
    )
    if later is not None:
        when = date_format(timezone.localtime(later), "DATETIME_FORMAT")
        return f"{text} " + _("Bland asked us to come back at %s.") % when
    return f"{text} " + _("Open the update to carry them out, or run manage.py bland_sms_work.")


def written_again(bulk_update: BulkUpdate) -> int:
    """Customers for whom Bland opened a new conversation after this update deactivated theirs.

    Looked at from the new conversations, which are few, and not from the items, which may be many.
    """
    if bulk_update.is_active or bulk_update.started_at is None:
        return 0
    deactivated = BulkUpdateItem.objects.filter(
        bulk_update=bulk_update,
        state=State.CHANGED,
        finished_at__lt=OuterRef("created_at"),
        conversation__user_number=OuterRef("user_number"),
    )
    newest = (
        Conversation.objects.filter(created_at__gt=bulk_update.started_at, is_active=True)
        .exclude(user_number="")
        .order_by("-created_at")
        .values_list("pk", flat=True)[:MOST_NEW]
    )
    found = Conversation.objects.filter(Exists(deactivated), pk__in=list(newest))
    return found.order_by().values("user_number").distinct().count()


def sync_words(run: SyncRun) -> tuple[str, int]:
    """What a sync came to, and the level of the message."""
    if run.status == SyncRun.Status.SKIPPED:
        return _("A copy from Bland is running already. Look again in a moment."), messages.INFO
    counts = {"created": run.created, "changed": run.changed, "failed": run.failed}
    if run.status == SyncRun.Status.FINISHED:
        text = _("Copied from Bland: %(created)d new, %(changed)d changed.") % counts
        if not run.failed:
            return text, messages.SUCCESS
        text = _("%(text)s %(failed)d could not be read.") % {"text": text, **counts}
        return text, messages.WARNING
    if run.seen:
        text = _("Not all was copied: %(error)s. So far %(created)d new, %(changed)d changed.")
        return text % {"error": translated(run.error), **counts}, messages.WARNING
    text = _("Nothing was copied: %s. What you see is the last copy.")
    return text % translated(run.error), messages.ERROR


def refresh_words(refreshed: Refreshed) -> list[tuple[int, str]]:
    told: list[tuple[int, str]] = []
    count: Callable[[int], dict[str, int]] = lambda number: {"count": number}  # noqa: E731
    if refreshed.copied:
        number = len(refreshed.copied)
        text = ngettext(
            "%(count)d conversation copied from Bland.",
            "%(count)d conversations copied from Bland.",
            number,
        )
        told.append((messages.SUCCESS, text % count(number)))
    if refreshed.missing:
        number = len(refreshed.missing)
        text = ngettext(
            "%(count)d not found under this key. The copy is kept.",
            "%(count)d not found under this key. The copies are kept.",
            number,
        )
        told.append((messages.WARNING, text % count(number)))
    causes: dict[str, int] = {}
    for error in refreshed.failed.values():
        cause = translated(error)
        causes[cause] = causes.get(cause, 0) + 1
    for cause, number in causes.items():
        text = ngettext(
            "%(count)d not refreshed: %(cause)s.", "%(count)d not refreshed: %(cause)s.", number
        )
        told.append((messages.ERROR, text % {"count": number, "cause": cause}))
    return told
