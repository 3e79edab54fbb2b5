"""The ledger: every update ever asked of Bland, and what became of each conversation in it."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Count, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from ..leases import Leased
from ..reasons import Failure
from .conversation import Conversation
from .fields import BlandIdField, Group, UserKey


class BulkUpdate(Leased):
    """One thing asked of Bland for a number of conversations. Only ``updates`` writes here."""

    class Status(models.TextChoices):
        DRAFT = "draft", pgettext_lazy("bulk update", "Draft")
        QUEUED = "queued", pgettext_lazy("bulk update", "Waiting")
        RUNNING = "running", pgettext_lazy("bulk update", "Running")
        FINISHED = "finished", pgettext_lazy("bulk update", "Finished")
        STOPPED = "stopped", pgettext_lazy("bulk update", "Stopped")
        CANCELLED = "cancelled", pgettext_lazy("bulk update", "Cancelled")

        OPEN = Group("QUEUED", "RUNNING")
        """It is carried out, or waits for it."""

        UNFINISHED = Group("QUEUED", "RUNNING", "STOPPED")
        """Open, or stopped until Continue is pressed."""

        AT_REST = Group("FINISHED", "CANCELLED")
        """Nothing of it is sent any more, unless Retry is pressed."""

    class Source(models.TextChoices):
        ADMIN = "admin", _("Admin")
        API = "api", _("API")
        COMMAND = "command", _("Command")
        STANDING = "standing", _("Standing order")

    is_active = models.BooleanField(_("active"))
    """What was asked: ``False`` deactivates, ``True`` reactivates."""
    status = models.CharField(
        _("state"), max_length=16, choices=Status.choices, default=Status.DRAFT
    )
    reason = models.CharField(_("reason"), max_length=200, default="", blank=True)
    requested_by = UserKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("requested by"),
    )
    requested_by_name = models.CharField(max_length=255, default="", blank=True)
    """Is kept when the user is deleted."""
    source = models.CharField(_("source"), max_length=16, choices=Source.choices)
    selection = models.CharField(_("selection"), max_length=500, default="", blank=True)
    """What it was selected by, as data that ``selections`` words; no phone numbers."""
    stop_code = models.CharField(max_length=64, default="", blank=True)
    stop_params = models.JSONField(default=dict, blank=True, editable=False)
    """Parameters of its sentence; ``stop_message`` words it."""
    undo_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="undone_by"
    )
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    request_sha256 = models.CharField(max_length=64, default="", blank=True)
    counts_at_rest = models.JSONField(null=True, blank=True, editable=False)
    """``counts()`` when it last finished, stopped or was cancelled. Lists show these."""
    live_counts = models.JSONField(null=True, blank=True, editable=False)
    """Of a large one that waits or is carried out: ``counts()`` as its driver last saw them, so
    that an open page costs one row. Empty: something else has changed its items since. NULL: it is
    small. Always counted from the items: a crash or a takeover leaves nothing wrong."""
    live_seconds_each = models.FloatField(null=True, blank=True, editable=False)
    """Beside ``live_counts``: how long each conversation has taken since its driver began."""
    preview = models.JSONField(null=True, blank=True, editable=False)
    """What the confirmation of a large draft says of its rows, counted when it was selected."""
    not_before = models.DateTimeField(null=True, blank=True, editable=False)
    """When it is tried again after Bland did not answer, by any process that runs updates."""
    outage_since = models.DateTimeField(null=True, blank=True, editable=False)
    """Since when Bland has not answered. NULL: it answers."""
    outage_pauses = models.PositiveSmallIntegerField(default=0, editable=False)
    """How often it has paused since: each pause is longer than the one before."""
    retry_tokens = models.FloatField(null=True, blank=True, editable=False)
    """What is left of its retry budget, for all processes together. NULL: all of it."""
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    """The moment of the intent: the newer one wins where two people disagree."""
    dispatched_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When another process was asked to carry it out. NULL: the open page does."""
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    class Meta:
        verbose_name = _("bulk update")
        verbose_name_plural = _("bulk updates")
        default_permissions = ("view",)
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["requested_by", "idempotency_key"], name="bland_sms_update_idempotency"
            ),
        ]
        indexes = [
            models.Index(fields=["status", "id"], name="bland_sms_update_status"),
            models.Index(fields=["requested_by", "id"], name="bland_sms_update_who"),
            models.Index(fields=["source", "id"], name="bland_sms_update_source"),
            models.Index(fields=["started_at", "id"], name="bland_sms_update_started"),
        ]

    def __str__(self) -> str:
        words = _("Update %s: reactivate") if self.is_active else _("Update %s: deactivate")
        return str(words % self.pk)

    @property
    def permission(self) -> str:
        """The verb's own permission."""
        verb = "reactivate" if self.is_active else "deactivate"
        return f"bland_sms.{verb}_conversation"

    @property
    def stop(self) -> Failure:
        """Why it stopped, to be worded when it is shown."""
        return Failure(self.stop_code, self.stop_params)

    @property
    def stop_message(self) -> str:
        """Why it stopped: a sentence for operators in the active language; ``""``: it did not."""
        return self.stop.for_operators.as_sentence

    def counts(self, items: QuerySet[BulkUpdateItem] | None = None) -> dict[str, int]:
        """How many items are in each of the seven states, by one query.

        Args:
            items: Some of its own. ``None``: all of them.
        """
        rows = self.items.all() if items is None else items
        found = dict(rows.order_by().values_list("state").annotate(number=Count("pk")))
        return {state: found.get(state, 0) for state in BulkUpdateItem.State.values}

    def known_counts(self) -> dict[str, int]:
        """``counts()``, or those that were kept, at the cost of no query: of an update at rest the
        same, of a large one that moves as they were a moment ago."""
        if self.status == self.Status.QUEUED or self.has_live_lease:
            return self.live_counts or self.counts()
        is_moving = self.status in (*self.Status.OPEN, self.Status.DRAFT)
        return self.counts() if is_moving or not self.counts_at_rest else self.counts_at_rest

    def keep_counts(self) -> None:
        """Count, for the pages that are open; the caller has locked the row."""
        self.live_counts = self.counts()
        kept = {"live_counts": self.live_counts, "live_seconds_each": self.live_seconds_each}
        BulkUpdate.objects.filter(pk=self.pk).update(**kept)

    @property
    def trying_again_at(self) -> datetime | None:
        """When it goes on by itself, where it pauses because Bland does not answer."""
        is_outage = self.status == self.Status.STOPPED and self.stop_code == "outage"
        return self.not_before if is_outage else None


class BulkUpdateItem(models.Model):
    """One conversation of an update."""

    class State(models.TextChoices):
        WAITING = "waiting", pgettext_lazy("item", "Waiting")
        RUNNING = "running", pgettext_lazy("item", "Running")
        CHANGED = "changed", pgettext_lazy("item", "Changed")
        UNCHANGED = "unchanged", pgettext_lazy("item", "No change needed")
        FAILED = "failed", pgettext_lazy("item", "Failed")
        UNKNOWN = "unknown", pgettext_lazy("item", "Unknown")
        CANCELLED = "cancelled", pgettext_lazy("item", "Cancelled")

        OPEN = Group("WAITING", "RUNNING")
        """Still to be asked, or being asked."""

        SETTLED = Group("CHANGED", "UNCHANGED", "FAILED", "UNKNOWN", "CANCELLED")
        """It is known what became of it, or that it cannot be known."""

    bulk_update = models.ForeignKey(
        BulkUpdate, on_delete=models.CASCADE, related_name="items", db_index=False
    )
    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="update_items",
        verbose_name=_("conversation"),
    )
    """No database constraint: a row may go, and an id may be new to the mirror."""
    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.WAITING
    )
    claimed_conversation = BlandIdField(null=True, blank=True, unique=True, editable=False)
    """The id while ``running``, else NULL: one call in flight for each conversation."""
    previous_is_active = models.BooleanField(null=True, blank=True)
    """What the row held before we first asked. NULL: not asked yet."""
    attempts = models.IntegerField(_("attempts"), default=0)
    """Updates sent to Bland for this item, retries included."""
    not_before = models.DateTimeField(_("not before"), null=True, blank=True)
    http_status = models.IntegerField(_("HTTP status"), null=True, blank=True)
    error_code = models.CharField(_("code"), max_length=64, default="", blank=True)
    error_params = models.JSONField(null=True, blank=True, editable=False)
    """Parameters of its sentence. NULL: none."""
    message = models.CharField(_("Bland's words"), max_length=500, default="", blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    class Meta:
        verbose_name = _("item")
        verbose_name_plural = _("items")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["bulk_update", "conversation"], name="bland_sms_item_once"
            ),
        ]
        indexes = [
            models.Index(fields=["bulk_update", "state", "id"], name="bland_sms_item_state"),
            # With the id: what failed and was asked for later is told by these two alone.
            models.Index(
                fields=["conversation", "state", "id"], name="bland_sms_item_conversation"
            ),
            models.Index(fields=["state", "conversation", "id"], name="bland_sms_item_open"),
            models.Index(fields=["state", "finished_at"], name="bland_sms_item_finished"),
        ]

    def __str__(self) -> str:
        return f"{self.conversation_id}: {self.state}"

    @property
    def failure(self) -> Failure:
        """Why it is not as asked, to be worded when it is shown."""
        return Failure.of(self.error_code, self.error_params, self.http_status, self.message)
