"""The log of copies from Bland."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..models import SyncRun
from .mirrored import MirroredAdmin, shown_time


class SyncRunAdmin(MirroredAdmin[SyncRun]):
    """Each attempt to copy conversations, and what came of it."""

    list_display = ("started", "mode", "trigger", "status", "seen", "created", "changed", "failed")
    list_filter = ("status",)
    ordering = ("-pk",)
    sortable_by = ()

    @admin.display(description=gettext_lazy("Started"))
    def started(self, run: SyncRun) -> SafeString | str:
        return shown_time(run.started_at)
