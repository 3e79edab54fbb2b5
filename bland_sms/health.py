"""Health: one report, shown alike by the command, the address ``health/`` and the admin.

Nothing here asks Bland, and nothing counts further than :data:`COUNT_CAP`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .client import check_client
from .conf import get_settings
from .exceptions import BlandConfigurationError
from .models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    StandingOrder,
    SyncRun,
    WebhookDelivery,
)
from .payloads import EPOCH
from .reasons import Failure
from .standing import how_long
from .sync import last_attempt, last_copied_at

COUNT_CAP = 10_000
MOST_TOLD = 20
"""Stopped updates that are named."""
OUTAGE = "outage"
DATABASE_ERRORS = (DatabaseError, InterfaceError)


@dataclass(frozen=True, kw_only=True)
class Health:
    """How things stand. Counts end at :data:`COUNT_CAP`."""

    status: str
    """``ok``, or the first of these that is true:

    ``database``: it is away, or not migrated; ``not_configured``: Bland cannot be asked;
    ``never_synced``: the list was never copied as a whole; ``failing``: it is older than
    ``STALE_AFTER``, and the last attempt failed; ``stale``: it is, and nothing tries; ``behind``:
    webhooks or updates have waited for longer than that, and none is carried out; ``outage``:
    Bland does not answer, updates wait and are tried again by themselves.
    """
    problem: str = ""
    """Why Bland cannot be asked, or what stopped the last sync, in words."""
    synced_at: datetime | None = None
    """When the last complete copy of the list was begun."""
    age_seconds: int | None = None
    stale_after_seconds: float | None = None
    updates_waiting: int = 0
    updates_running: int = 0
    updates_stopped: int = 0
    """They wait for a person, who presses Continue or Cancel."""
    updates_paused: int = 0
    """They go on by themselves when Bland answers again."""
    paused_until: datetime | None = None
    """When the first of these is tried again."""
    outage_since: datetime | None = None
    """Since when Bland has not answered them."""
    orders_suspended: int = 0
    """Standing orders that do nothing until a person renews them."""
    orders_by_webhook: bool = False
    """Webhooks came in lately: standing orders see a new conversation within seconds."""
    orders_timer_seconds: int | None = None
    """Between two runs of the timer, which shows them what no webhook told; ``None``: none runs."""
    deliveries_waiting: int = 0
    deliveries_failed: int = 0
    conversations_missing: int = 0
    """Conversations that Bland does not find any more."""
    waiting_for_a_person: tuple[str, ...] = ()
    """What does not go on by itself, in words."""

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    @property
    def words(self) -> str:
        """The status in a sentence, with the next step."""
        return Failure(f"health_{self.status}", {"problem": self.problem}).as_sentence


def look() -> Health:
    """Look how things stand, by a fixed number of statements on indexes. Never raises."""
    try:
        return _look()
    except DATABASE_ERRORS:
        return Health(status="database")


def _look() -> Health:
    now, synced_at = timezone.now(), last_copied_at()
    age = None if synced_at is None else max(0, int((now - synced_at).total_seconds()))
    try:
        stale_after = get_settings().stale_after
        check_client()
    except (BlandConfigurationError, ImproperlyConfigured) as error:
        return Health(
            status="not_configured",
            problem=str(error),
            synced_at=synced_at,
            age_seconds=age,
            **_counts(),
        )
    oldest_fresh = now - timedelta(seconds=stale_after)
    status, problem = "ok", ""
    if synced_at is None:
        status, problem = "never_synced", _last_problem()
    elif synced_at < oldest_fresh:
        problem = _last_problem()
        status = "failing" if problem else "stale"
    elif _is_behind(oldest_fresh):
        status = "behind"
    counts = _counts()
    if status == "ok" and counts["updates_paused"]:
        status = "outage"
    return Health(
        status=status,
        problem=problem,
        synced_at=synced_at,
        age_seconds=age,
        stale_after_seconds=stale_after,
        **counts,
    )


def _last_problem() -> str:
    """What the newest attempt died of, or ``""``."""
    run = last_attempt()
    if run is None or run.status == SyncRun.Status.FINISHED:
        return ""
    return str(run.failure.told(with_words=False).for_operators) or str(run.status)


def _is_behind(oldest: datetime) -> bool:
    """Whether something could have been carried out since then, and was not."""
    unleased = Q(lease_until__isnull=True) | Q(lease_until__lte=oldest)
    due = Q(not_before__isnull=True) | Q(not_before__lte=oldest)
    deliveries = WebhookDelivery.objects.filter(
        unleased, due, state=WebhookDelivery.State.RECEIVED, received_at__lt=oldest
    )
    items = BulkUpdateItem.objects.filter(
        bulk_update=OuterRef("pk"), state__in=BulkUpdateItem.State.OPEN
    )
    updates = BulkUpdate.objects.filter(
        unleased,
        due,
        Exists(items.filter(due)),
        status__in=BulkUpdate.Status.UNFINISHED,
        started_at__lt=oldest,
    )
    # A stopped update waits for a person, but for an outage.
    updates = updates.exclude(~Q(stop_code=OUTAGE), status=BulkUpdate.Status.STOPPED)
    return deliveries.exists() or updates.exists()


def _counts() -> dict[str, Any]:
    status, state = BulkUpdate.Status, WebhookDelivery.State
    updates, deliveries = BulkUpdate.objects, WebhookDelivery.objects
    failed = _capped(deliveries.filter(state=state.FAILED))
    waits = StandingOrder.not_over() & Q(suspended_code__gt="")
    suspended = _capped(StandingOrder.objects.filter(waits))
    delay = how_long()
    missing = Conversation.objects.filter(missing_since__gt=EPOCH)  # a range: NULLs are not read
    return {
        "updates_waiting": _capped(updates.filter(status=status.QUEUED)),
        "updates_running": _capped(updates.filter(status=status.RUNNING)),
        **_stopped(failed, suspended),
        "orders_suspended": suspended,
        "orders_by_webhook": delay.by_webhook,
        "orders_timer_seconds": delay.timer_seconds,
        "deliveries_waiting": _capped(deliveries.filter(state=state.RECEIVED)),
        "deliveries_failed": failed,
        "conversations_missing": _capped(missing),
    }


def _stopped(deliveries_failed: int, orders_suspended: int) -> dict[str, Any]:
    """Updates that stopped: for good, until a person decides, or for as long as an outage lasts."""
    stopped = BulkUpdate.objects.filter(status=BulkUpdate.Status.STOPPED).order_by("-pk")
    found = list(stopped.defer("selection", "reason", "counts_at_rest")[:COUNT_CAP])
    paused = [update for update in found if update.trying_again_at is not None]
    waiting = [update for update in found if update.trying_again_at is None]
    told = [
        _("Update %(number)d: %(why)s") % {"number": update.pk, "why": update.stop_message}
        for update in waiting[:MOST_TOLD]
    ]
    if deliveries_failed:
        words = ngettext(
            "%d webhook delivery failed", "%d webhook deliveries failed", deliveries_failed
        )
        told.append(words % deliveries_failed)
    if orders_suspended:
        words = ngettext(
            "%d standing order is suspended", "%d standing orders are suspended", orders_suspended
        )
        told.append(words % orders_suspended)
    return {
        "updates_stopped": len(waiting),
        "updates_paused": len(paused),
        "paused_until": min(filter(None, (update.not_before for update in paused)), default=None),
        "outage_since": min(filter(None, (update.outage_since for update in paused)), default=None),
        "waiting_for_a_person": tuple(told),
    }


def _capped(rows: QuerySet[Any, Model]) -> int:
    return rows.order_by()[:COUNT_CAP].count()


@login_not_required
@require_safe
@never_cache
@transaction.non_atomic_requests
def health_view(request: HttpRequest) -> HttpResponse:
    """200 or 503, with the status word; the rest for those who may see sync runs."""
    health = look()
    told: dict[str, Any] = {"status": health.status}
    try:
        if _may_see_details(request):
            told = asdict(health)
    except DATABASE_ERRORS:
        health = Health(status="database")
        told = {"status": health.status}
    response = JsonResponse(told, status=200 if health.is_ok else 503)
    # Django mails each 5xx that it logs to the site's admins, and a monitor looks often.
    response._has_been_logged = not health.is_ok  # type: ignore[attr-defined]
    return response


def _may_see_details(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)  # a host may do without django.contrib.auth's middleware
    return user is not None and bool(user.has_perm("bland_sms.view_syncrun"))
