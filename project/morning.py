"""What the demo has behind it when it opens: two people, and a morning of their updates."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import requests
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, Group, Permission
from django.db.models import QuerySet
from django.utils import timezone

from bland_sms import standing, updates
from bland_sms.models import BulkUpdate, Conversation, StandingOrder
from bland_sms.sync import refresh_many

LEAD, AGENT = "demo", "desk"
"""The password of each is the same as the name. The lead may do everything."""
AGENT_MAY = (
    "view_conversation",
    "view_transcript",
    "deactivate_conversation",
    "refresh_conversation",
)
UNCOPIED = 12
"""The newest conversations, whose messages are copied only when they are opened."""


def make_people() -> None:
    """The lead's login, and a restricted one beside it."""
    users = get_user_model().objects
    lead, _ = users.get_or_create(username=LEAD, defaults={"is_staff": True, "is_superuser": True})
    agent, _ = users.get_or_create(username=AGENT, defaults={"is_staff": True})
    for user in (lead, agent):
        user.set_password(user.get_username())
        user.save()
    group, _ = Group.objects.get_or_create(name="Support desk")
    group.permissions.set(
        Permission.objects.filter(content_type__app_label="bland_sms", codename__in=AGENT_MAY)
    )
    agent.groups.add(group)


def copy_messages() -> None:
    """Copy all threads but the newest ones."""
    ids = list(
        Conversation.objects.order_by("-last_activity_at", "-pk").values_list("pk", flat=True)
    )
    refreshed = refresh_many(ids[UNCOPIED:])
    assert not refreshed.failed, refreshed


def begin_the_day() -> None:
    """A few updates by both: done, undone, with failures, and one that waits for its page; and a
    customer who is stopped for good."""
    users = get_user_model().objects
    lead, agent = users.get(username=LEAD), users.get(username=AGENT)
    week_ago = timezone.now() - timedelta(days=7)
    active = Conversation.objects.filter(is_active=True)
    older = active.filter(last_activity_at__lt=week_ago).order_by("last_activity_at", "pk")
    recent = active.filter(last_activity_at__gte=week_ago).order_by("last_activity_at", "pk")
    _carry_out(recent[:1], agent, "Customer wrote STOP, ticket 4701")
    mistaken = _carry_out(recent[:3], agent, "Wrong list")
    undo = updates.undo(mistaken, lead, source=BulkUpdate.Source.ADMIN)
    updates.start(undo)
    updates.run(undo)
    chosen = recent[:6]
    with_faults = dict(zip(_ids(chosen), ("forever:404", "forever:422"), strict=False))
    requests.post(f"{_sandbox()}/faults", json=with_faults, timeout=10).raise_for_status()
    _carry_out(chosen, lead, "Callback campaign of last week ended")
    requests.post(f"{_sandbox()}/clear", timeout=10).raise_for_status()
    waiting = _draft(older, lead, "Older than a week, no answer: ticket 4710")
    updates.start(waiting)
    alone = (
        row for row in recent.reverse() if active.filter(customer_key=row.customer_key).count() == 1
    )
    _stop_for_good(next(alone), lead, "Asked by phone: ticket 4712")


def _stop_for_good(row: Conversation, user: AbstractUser, reason: str) -> None:
    """Order it, and deactivate what is active: the customer writes again while the demo runs."""
    standing.make(row.user_number, reason, requested_by=user, source=StandingOrder.Source.ADMIN)
    _carry_out(Conversation.objects.filter(pk=row.pk), user, reason)


def _carry_out(rows: QuerySet[Conversation], user: AbstractUser, reason: str) -> BulkUpdate:
    draft = _draft(rows, user, reason)
    updates.start(draft)
    updates.run(draft)
    return draft


def _draft(rows: QuerySet[Conversation], user: AbstractUser, reason: str) -> BulkUpdate:
    return updates.prepare(
        _ids(rows), False, requested_by=user, reason=reason, source=BulkUpdate.Source.ADMIN
    )


def _ids(rows: QuerySet[Conversation]) -> list[Any]:
    return list(rows.values_list("pk", flat=True))


def _sandbox() -> str:
    return f"{os.environ['BLAND_BASE_URL']}/_sandbox"
