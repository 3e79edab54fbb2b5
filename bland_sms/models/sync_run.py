"""The log of attempts to bring the mirror up to date."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from ..leases import Leased
from ..reasons import Failure
from .fields import UserKey


class SyncRun(Leased):
    """One attempt to copy conversations from Bland. Only ``sync`` writes here."""

    class Mode(models.TextChoices):
        INCREMENTAL = "incremental", pgettext_lazy("sync run", "Changes")
        FULL = "full", pgettext_lazy("sync run", "Everything")

    class Status(models.TextChoices):
        RUNNING = "running", pgettext_lazy("sync run", "Running")
        FINISHED = "finished", pgettext_lazy("sync run", "Finished")
        INCOMPLETE = "incomplete", pgettext_lazy("sync run", "Incomplete")
        FAILED = "failed", pgettext_lazy("sync run", "Failed")
        SKIPPED = "skipped", pgettext_lazy("sync run", "Skipped")

    mode = models.CharField(_("mode"), max_length=16, choices=Mode.choices, default=Mode.FULL)
    trigger = models.CharField(_("trigger"), max_length=16, default="command")
    """What started it: ``command``, ``admin``, ``api`` or ``task``."""
    requested_by = UserKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("requested by"),
    )
    status = models.CharField(
        _("state"), max_length=16, choices=Status.choices, default=Status.RUNNING
    )
    cursor = models.JSONField(default=list, blank=True, editable=False)
    """What is left to read, written with each page: ranges ``[from, until, reached, sort_by]`` of
    Bland's times as text. After a crash the next run goes on from here."""
    watermark = models.DateTimeField(null=True, blank=True, editable=False)
    """By Bland's clock: every change before it is in the mirror. Of completed runs only."""
    dialect = models.CharField(max_length=1, default="", blank=True, editable=False)
    """Which of the list's two query dialects Bland obeyed."""
    seen = models.IntegerField(_("seen"), default=0)
    created = models.IntegerField(_("created"), default=0)
    changed = models.IntegerField(_("changed"), default=0)
    unchanged = models.IntegerField(_("unchanged"), default=0)
    failed = models.IntegerField(_("failed"), default=0)
    owed = models.JSONField(_("to be copied again"), default=list, blank=True, editable=False)
    """The first conversations that it could not copy: ``[id, error code]``."""
    error_code = models.CharField(_("error"), max_length=64, default="", blank=True)
    error_params = models.JSONField(default=dict, blank=True, editable=False)
    """Parameters of its sentence; ``error`` words it."""
    lease_key = models.CharField(max_length=16, null=True, blank=True, unique=True, editable=False)
    """Set while it holds the lease, else NULL: one sync at a time."""
    walk_began_at = models.DateTimeField(default=timezone.now, editable=False)
    """Ours: when the walk began that it finishes, perhaps in a run that crashed."""
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    class Meta:
        verbose_name = _("sync run")
        verbose_name_plural = _("sync runs")
        default_permissions = ("view",)
        ordering = ["-pk"]
        indexes = [models.Index(fields=["status", "id"], name="bland_sms_sync_status")]

    def __str__(self) -> str:
        return _("Sync %(number)s: %(state)s") % {
            "number": self.pk,
            "state": self.get_status_display(),
        }

    @property
    def failure(self) -> Failure:
        """Why it did not come to its end, to be worded when it is shown."""
        return Failure(self.error_code, self.error_params)

    @failure.setter
    def failure(self, failure: Failure) -> None:
        self.error_code, self.error_params = failure.code[:64], dict(failure.params)

    @property
    def error(self) -> str:
        """The same for operators in the active language, without a full stop; ``""``: nothing."""
        return str(self.failure.for_operators)
