"""A conversation's messages as a thread, with what we did to it in between."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from ..models import BulkUpdateItem, Conversation, Message
from ..models.conversation import SYNTHETIC_TEXT
from .mirrored import shown_text

NEWEST_SHOWN = 200
EVENTS_SHOWN = 50


@dataclass(frozen=True)
class Entry:
    """One line of the thread: a message, or an event of ours."""

    at: datetime | None
    side: str
    """``customer``, ``ours`` or ``event``."""
    label: str
    text: str
    delivery: str = ""
    update_id: int | None = None
    attachments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """What is shown of a thread."""

    days: list[tuple[date | None, list[Entry]]]
    hidden: int
    """Earlier messages that are not shown."""


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
            entries, key=lambda entry: timezone.localdate(entry.at) if entry.at else None
        )
    ]
    return Transcript(days, hidden)


def transcript_text(conversation: Conversation) -> str:
    """The whole thread as plain text, oldest message first."""
    lines = [
        _("Conversation %s") % conversation.pk,
        _("Customer: %s") % (conversation.user_number or _("no number")),
        _("Our number: %s") % (conversation.agent_number or _("no number")),
    ]
    if conversation.transcript_observed_at is None:
        lines.append(_("The messages were not copied from Bland yet."))
    else:
        copied_at = timezone.localtime(conversation.transcript_observed_at)
        lines.append(_("Copied from Bland: %s") % copied_at.isoformat(" ", "seconds"))
    lines.append("")
    for message in conversation.messages.exclude(text=SYNTHETIC_TEXT).order_by("position"):
        entry = _entry(message)
        at = timezone.localtime(entry.at).isoformat(" ", "seconds") if entry.at else "?"
        delivery = f" ({entry.delivery})" if entry.delivery else ""
        lines.append(f"[{at}] {entry.label}{delivery}: {entry.text}")
        lines += entry.attachments
    return "\n".join(lines) + "\n"


def _entry(message: Message) -> Entry:
    labels = {"USER": _("Customer"), "AGENT": _("Agent"), "HUMAN": _("Rep")}
    delivery = _delivery_words(message.status)
    if message.error_code:
        delivery = f"{delivery} ({message.error_code})" if delivery else message.error_code
    return Entry(
        at=message.created_at,
        side="customer" if message.sender == "USER" else "ours",
        label=labels.get(message.sender, message.sender),
        text=shown_text(message.text),
        delivery=delivery,
        attachments=_links(message.attachments),
    )


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
    found = attachments if isinstance(attachments, list) else []
    urls = [one.get("url") if isinstance(one, dict) else one for one in found]
    return tuple(
        url for url in urls if isinstance(url, str) and url.startswith(("https://", "http://"))
    )


def _with_events(entries: list[Entry], conversation: Conversation) -> list[Entry]:
    """Our events among the messages, each after the last message that is not newer."""
    items = (
        BulkUpdateItem.objects.filter(
            conversation_id=conversation.pk,
            state=BulkUpdateItem.State.CHANGED,
            finished_at__isnull=False,
        )
        .select_related("bulk_update")
        .order_by("-finished_at")[:EVENTS_SHOWN]
    )
    merged = list(entries)
    for item in items:
        event = _event(item)
        place = len(merged)
        while place and _is_newer(merged[place - 1], event):
            place -= 1
        merged.insert(place, event)
    return merged


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
    )
