"""The log of copies from Bland."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import SyncRun
from .mirrored import MirroredAdmin, Options, shown_time


class SyncRunAdmin(MirroredAdmin[SyncRun]):
    """Each attempt to copy conversations, and what came of it."""

    list_display: Options = (
        "started",
        "mode",
        "trigger",
        "shown_status",
        "seen",
        "created",
        "changed",
        "failed",
        "error",
    )
    list_filter: ClassVar[Options] = ("status",)
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ()

    @admin.display(description=gettext_lazy("Started"))
    def started(self, run: SyncRun) -> SafeString | str:
        return shown_time(run.started_at)

    @admin.display(description=gettext_lazy("State"))
    def shown_status(self, run: SyncRun) -> str:
        is_dead = run.lease_until is None or run.lease_until < timezone.now()
        if run.status == SyncRun.Status.RUNNING and is_dead:
            return _("Interrupted: the next sync goes on from here")
        return str(SyncRun.Status(run.status).label)
