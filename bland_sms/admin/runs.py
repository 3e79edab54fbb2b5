"""The log of copies from Bland."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import BooleanField, Model, QuerySet, Value
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import SyncRun
from .base import MirroredAdmin, Options
from .formatting import quantity, shown_time
from .sight import may_read_words


class SyncRunAdmin(MirroredAdmin[SyncRun]):
    """Each attempt to copy conversations, and what came of it."""

    list_display: Options = (
        "started",
        "mode",
        "shown_trigger",
        "shown_status",
        "shown_seen",
        "shown_created",
        "shown_changed",
        "shown_failed",
        "shown_error",
    )
    list_filter: ClassVar[Options] = ("status",)
    ordering: ClassVar[Options] = ("-pk",)
    sortable_by: ClassVar[Options] = ()

    @admin.display(description=gettext_lazy("Started"))
    def started(self, run: SyncRun) -> SafeString | str:
        return shown_time(run.started_at)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ["id", *self.list_display, "shown_owed", "requested_by", "finished_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.get_fields(request, obj)

    @admin.display(description=gettext_lazy("Trigger"))
    def shown_trigger(self, run: SyncRun) -> str:
        known = {
            "admin": _("Admin"),
            "api": _("API"),
            "command": _("Command"),
            "task": _("Schedule"),
        }
        return known.get(run.trigger, run.trigger)

    shown_seen, shown_created = quantity(SyncRun, "seen"), quantity(SyncRun, "created")
    shown_changed, shown_failed = quantity(SyncRun, "changed"), quantity(SyncRun, "failed")

    def get_queryset(self, request: HttpRequest) -> QuerySet[SyncRun]:
        may_read = Value(may_read_words(request), BooleanField())
        return super().get_queryset(request).annotate(bland_sms_with_words=may_read)

    @admin.display(description=gettext_lazy("Error"))
    def shown_error(self, run: SyncRun) -> str:
        return run.failure.told(getattr(run, "bland_sms_with_words", False)).advice

    @admin.display(description=gettext_lazy("To be copied again"))
    def shown_owed(self, run: SyncRun) -> str:
        return ", ".join(f"{conversation_id} ({code})" for conversation_id, code in run.owed)

    @admin.display(description=gettext_lazy("State"))
    def shown_status(self, run: SyncRun) -> str:
        if run.status == SyncRun.Status.RUNNING and not run.has_live_lease:
            return _("Interrupted: the next sync goes on from here")
        return str(SyncRun.Status(run.status).label)
