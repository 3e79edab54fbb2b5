"""A conversation's messages as a thread, with what we did to it in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from ..models import BulkUpdateItem, Conversation, ConversationEvent, Message
from ..models.conversation import SYNTHETIC_TEXT
from ..payloads import MESSAGES_LEFT_OUT
from ..quantities import number_words
from ..words import one_line
from .formatting import shown_text

Kind = ConversationEvent.Kind

NEWEST_SHOWN = 200
EVENTS_SHOWN = 50
SAME_CHANGE = timedelta(minutes=10)
"""Between Bland's time of a change and ours of the update that asked for it."""
INDENT = "    "
ATTACHMENT_NAMES = ("attachments", "attachment", "media", "media_url", "media_urls")
TEXT_NAMES = ("id", "message", "text", "value")
ADDRESS_NAMES = ("url", "media_url", "href", "link", "src")


@dataclass(frozen=True)
class Entry:
    """One line of the thread: a message, or an event of ours."""

    at: datetime | None
    side: str
    """``customer``, ``ours``, ``unknown`` (Bland did not tell) or ``event``."""
    label: str = field(repr=False)
    text: str = field(repr=False)  # error trackers keep what templates are given by repr
    delivery: str = field(default="", repr=False)
    update_id: int | None = None
    kind: str = ""
    """Of an event: which."""
    attachments: tuple[str, ...] = field(default=(), repr=False)
    attachments_before: int = 0
    """How many the thread has above it: by their numbers its links are told apart."""
    notes: tuple[str, ...] = field(default=(), repr=False)
    """What is there and cannot be shown, in words, so that no message looks empty."""


@dataclass(frozen=True)
class Transcript:
    """What is shown of a thread."""

    days: list[tuple[date | None, list[Entry]]]
    hidden: int
    """Earlier messages that are not shown."""


def is_uncopied(conversation: Conversation) -> bool:
    """Whether a conversation's messages were never copied, and can be."""
    is_there = conversation.missing_since is None and conversation.erased_at is None
    return conversation.transcript_observed_at is None and is_there


def transcript_of(conversation: Conversation, *, show_all: bool, with_text: bool) -> Transcript:
    """The thread by days. Without ``with_text`` only our own events are in it."""
    found: list[Message] = []
    hidden = 0
    if with_text:
        messages = conversation.messages.exclude(text=SYNTHETIC_TEXT).order_by("-position")
        found = list(messages if show_all else messages[: NEWEST_SHOWN + 1])
        if not show_all and len(found) > NEWEST_SHOWN:
            found = found[:NEWEST_SHOWN]
            hidden = messages.count() - NEWEST_SHOWN
    entries = _with_events([_entry(message) for message in reversed(found)], conversation)
    days = [
        (day, list(lines))
        for day, lines in groupby(
            _numbered(entries), key=lambda entry: timezone.localdate(entry.at) if entry.at else None
        )
    ]
    return Transcript(days, hidden)


def _numbered(entries: Iterable[Entry]) -> Iterator[Entry]:
    before = 0
    for entry in entries:
        yield replace(entry, attachments_before=before)
        before += len(entry.attachments)


def transcript_text(conversation: Conversation) -> str:
    """The whole thread with our own events as plain text, oldest first.

    Every line that continues a message is indented: a line that begins with ``[`` is always ours,
    whatever the text of a message imitates.
    """
    lines = [
        _("Conversation %s") % conversation.pk,
        _("Customer: %s") % (one_line(conversation.user_number) or _("no number")),
        _("Our number: %s") % (one_line(conversation.agent_number) or _("no number")),
    ]
    if conversation.transcript_observed_at is None:
        lines.append(_("The messages were not copied from Bland yet."))
    else:
        copied_at = timezone.localtime(conversation.transcript_observed_at)
        lines.append(_("Copied from Bland: %s") % copied_at.isoformat(" ", "seconds"))
    lines.append("")
    messages = conversation.messages.exclude(text=SYNTHETIC_TEXT).order_by("position")
    for entry in _with_events([_entry(message) for message in messages], conversation):
        at = timezone.localtime(entry.at).isoformat(" ", "seconds") if entry.at else "?"
        if entry.side == "event":
            update = _("update %d") % entry.update_id if entry.update_id else ""
            lines.append(f"[{at}] {one_line(f'{entry.text}, {update}'.rstrip(', '))}")
        else:
            delivery = f" ({one_line(entry.delivery)})" if entry.delivery else ""
            first, *others = entry.text.splitlines() or [""]
            lines.append(f"[{at}] {one_line(entry.label)}{delivery}: {_printable(first)}")
            lines += [f"{INDENT}{_printable(line)}" for line in others]
        lines += [f"{INDENT}{one_line(text)}" for text in (*entry.attachments, *entry.notes)]
    return "\n".join(lines) + "\n"


def _printable(line: str) -> str:
    """Without control characters: some move back in the line or to its beginning."""
    return "".join(char if char.isprintable() or char == "\t" else " " for char in line)


def _entry(message: Message) -> Entry:
    labels = {"USER": _("Customer"), "AGENT": _("Agent"), "HUMAN": _("Rep")}
    sides = {"USER": "customer", "AGENT": "ours", "HUMAN": "ours"}
    links = _links(message.attachments)
    delivery = _delivery_words(message.status)
    if message.error_code:
        delivery = f"{delivery} ({message.error_code})" if delivery else message.error_code
    return Entry(
        at=message.created_at,
        side=sides.get(message.sender, "unknown"),
        label=labels.get(message.sender, message.sender) or _("Unknown sender"),
        text=shown_text(message.text),
        delivery=delivery,
        attachments=links,
        notes=_notes(message, links),
    )


def _notes(message: Message, links: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    left_out = message.extra.get(MESSAGES_LEFT_OUT)
    if isinstance(left_out, int) and left_out > 0:  # Bland may have a field of this name
        text = ngettext(
            "%(number)s earlier message was not copied.",
            "%(number)s earlier messages were not copied.",
            left_out,
        )
        notes.append(text % {"number": number_words(left_out)})
    if message.extra.get("app_card"):
        notes.append(_("Card"))
    attached = [message.attachments, *(message.extra.get(name) for name in ATTACHMENT_NAMES)]
    if not (message.text.strip() or notes):  # nothing but what has a name of its own, as a location
        attached += [
            value
            for name, value in message.extra.items()
            if isinstance(value, (dict, list)) and name not in TEXT_NAMES
        ]
    if any(attached) and not links:
        notes.append(_("Attachment (not shown)"))
    if not message.text.strip() and not links and not notes:
        notes.append(_("(no text)"))
    return tuple(notes)


def _delivery_words(status: str) -> str:
    """Bland's word for how far a message came; one that is not documented as it is."""
    known = {
        "pending": pgettext("message", "pending"),
        "queued": pgettext("message", "queued"),
        "sent": pgettext("message", "sent"),
        "delivered": pgettext("message", "delivered"),
        "read": pgettext("message", "read"),
        "failed": pgettext("message", "failed"),
        "undelivered": pgettext("message", "undelivered"),
    }
    return known.get(status, status)


def _links(attachments: Any) -> tuple[str, ...]:
    """Addresses of attachments, http and https only; they are linked to and never loaded."""
    found = attachments if isinstance(attachments, list) else [attachments]
    urls = [_address(one) if isinstance(one, dict) else one for one in found]
    return tuple(
        url for url in urls if isinstance(url, str) and url.startswith(("https://", "http://"))
    )


def _address(attachment: dict[str, Any]) -> Any:
    return next((attachment[name] for name in ADDRESS_NAMES if attachment.get(name)), None)


def _with_events(entries: list[Entry], conversation: Conversation) -> list[Entry]:
    """What happened among the messages, each after the last message that is not newer."""
    items = (
        BulkUpdateItem.objects.filter(
            conversation_id=conversation.pk,
            state=BulkUpdateItem.State.CHANGED,
            finished_at__isnull=False,
        )
        .select_related("bulk_update")
        .order_by("-finished_at")[:EVENTS_SHOWN]
    )
    ours = [_event(item) for item in items]
    merged = list(entries)
    for event in [*ours, *_told_events(conversation, ours)]:
        place = len(merged)
        while place and _is_newer(merged[place - 1], event):
            place -= 1
        merged.insert(place, event)
    return merged


def _told_events(conversation: Conversation, ours: list[Entry]) -> list[Entry]:
    """What Bland told, newest first; not once more what an update of ours stands for."""
    done = [(entry.kind, entry.at) for entry in ours if entry.at is not None]
    found = []
    # That it started is what a thread says by itself.
    told = conversation.events.exclude(kind=Kind.STARTED).order_by("-at")
    for event in told[:EVENTS_SHOWN]:
        same = next(
            (one for one in done if one[0] == event.kind and abs(one[1] - event.at) <= SAME_CHANGE),
            None,
        )
        if same is None:
            found.append(Entry(event.at, "event", "", event.get_kind_display(), kind=event.kind))
        else:
            done.remove(same)
    return found


def _is_newer(entry: Entry, event: Entry) -> bool:
    return entry.at is not None and event.at is not None and entry.at > event.at


def _event(item: BulkUpdateItem) -> Entry:
    update = item.bulk_update
    who = update.requested_by_name or _("an operator")
    text = _("Reactivated by %(who)s") if update.is_active else _("Deactivated by %(who)s")
    return Entry(
        at=item.finished_at,
        side="event",
        label="",
        text=text % {"who": who},
        update_id=update.pk,
        kind=Kind.REACTIVATED if update.is_active else Kind.DEACTIVATED,
        notes=(_("Reason: %s") % update.reason,) if update.reason else (),
    )
