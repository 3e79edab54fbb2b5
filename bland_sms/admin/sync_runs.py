"""The log of copies from Bland."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..models import SyncRun
from .mirrored import MirroredAdmin, Options, shown_time


class SyncRunAdmin(MirroredAdmin[SyncRun]):
    """Each attempt to copy conversations, and what came of it."""

    list_display: Options = (
        "started",
        "mode",
        "trigger",
        "status",
        "seen",
        "created",
        "changed",
        "failed",
    )
    list_filter: ClassVar[Options] = ("status",)
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ()

    @admin.display(description=gettext_lazy("Started"))
    def started(self, run: SyncRun) -> SafeString | str:
        return shown_time(run.started_at)
