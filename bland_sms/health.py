"""Is it well: one look that the command, the address ``health/`` and the admin tell alike.

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
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .client import get_client
from .conf import get_settings
from .exceptions import BlandConfigurationError
from .models import (
    OPEN_STATES,
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    SyncRun,
    WebhookDelivery,
)
from .payloads import EPOCH
from .sentences import translated
from .sync import last_copied_at

COUNT_CAP = 10_000
DATABASE_ERRORS = (DatabaseError, InterfaceError)


@dataclass(frozen=True, kw_only=True)
class Health:
    """How things stand. Counts end at :data:`COUNT_CAP`."""

    status: str
    """``ok``, or the first of these that is true:

    ``database``: it is away, or not migrated; ``not_configured``: Bland cannot be asked;
    ``never_synced``: the list was never copied as a whole; ``failing``: it is older than
    ``STALE_AFTER``, and the last attempt failed; ``stale``: it is, and nobody tries; ``behind``:
    webhooks or updates have waited for longer than that, and nobody carries them out.
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
    deliveries_waiting: int = 0
    deliveries_failed: int = 0
    conversations_missing: int = 0
    """Conversations that Bland does not find any more."""

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    @property
    def words(self) -> str:
        """The status in a sentence, with the next step."""
        sentences = {
            "ok": _("All is well."),
            "database": _("The database is away or not migrated."),
            "not_configured": _("Bland cannot be asked: %s."),
            "never_synced": _("The list was never copied as a whole: run `bland_sms_sync`."),
            "failing": _("The copy is old, and the last sync did not get to its end: %s."),
            "stale": _("The copy is old, and no sync was tried since: is its timer running?"),
            "behind": _(
                "Webhooks or updates wait and nobody carries them out: is a worker or "
                "`bland_sms_work` running?"
            ),
        }
        sentence = sentences[self.status]
        return sentence % translated(self.problem) if "%s" in sentence else sentence


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
        get_client()
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
    return Health(
        status=status,
        problem=problem,
        synced_at=synced_at,
        age_seconds=age,
        stale_after_seconds=stale_after,
        **_counts(),
    )


def _last_problem() -> str:
    """What the newest attempt died of, or ``""``."""
    status = SyncRun.Status
    ended = SyncRun.objects.filter(status__in=(status.FINISHED, status.INCOMPLETE, status.FAILED))
    run = ended.order_by("-pk").first()
    if run is None or run.status == status.FINISHED:
        return ""
    return run.error.rstrip(".") or str(run.status)


def _is_behind(oldest: datetime) -> bool:
    """Whether something could have been carried out since then, and was not."""
    nobody = Q(lease_until__isnull=True) | Q(lease_until__lte=oldest)
    due = Q(not_before__isnull=True) | Q(not_before__lte=oldest)
    deliveries = WebhookDelivery.objects.filter(
        nobody, due, state=WebhookDelivery.State.RECEIVED, received_at__lt=oldest
    )
    items = BulkUpdateItem.objects.filter(bulk_update=OuterRef("pk"), state__in=OPEN_STATES)
    updates = BulkUpdate.objects.filter(
        nobody,
        Exists(items.filter(due)),
        status__in=(BulkUpdate.Status.QUEUED, BulkUpdate.Status.RUNNING),
        started_at__lt=oldest,
    )
    return deliveries.exists() or updates.exists()


def _counts() -> dict[str, Any]:
    status, state = BulkUpdate.Status, WebhookDelivery.State
    updates, deliveries = BulkUpdate.objects, WebhookDelivery.objects
    missing = Conversation.objects.filter(missing_since__gt=EPOCH)  # a range: NULLs are not read
    return {
        "updates_waiting": _capped(updates.filter(status=status.QUEUED)),
        "updates_running": _capped(updates.filter(status=status.RUNNING)),
        "updates_stopped": _capped(updates.filter(status=status.STOPPED)),
        "deliveries_waiting": _capped(deliveries.filter(state=state.RECEIVED)),
        "deliveries_failed": _capped(deliveries.filter(state=state.FAILED)),
        "conversations_missing": _capped(missing),
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
