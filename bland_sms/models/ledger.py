"""The ledger: every update ever asked of Bland, and what became of each conversation in it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Count
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from .conversation import Conversation
from .fields import BlandIdField


class BulkUpdate(models.Model):
    """One thing asked of Bland for a number of conversations. Only ``updates`` writes here."""

    class Status(models.TextChoices):
        DRAFT = "draft", pgettext_lazy("bulk update", "Draft")
        QUEUED = "queued", pgettext_lazy("bulk update", "Waiting")
        RUNNING = "running", pgettext_lazy("bulk update", "Running")
        FINISHED = "finished", pgettext_lazy("bulk update", "Finished")
        STOPPED = "stopped", pgettext_lazy("bulk update", "Stopped")
        CANCELLED = "cancelled", pgettext_lazy("bulk update", "Cancelled")

    class Source(models.TextChoices):
        ADMIN = "admin", _("Admin")
        API = "api", _("API")
        COMMAND = "command", _("Command")

    is_active = models.BooleanField(_("active"))
    """What was asked: ``False`` deactivates, ``True`` reactivates."""
    status = models.CharField(
        _("state"), max_length=16, choices=Status.choices, default=Status.DRAFT
    )
    reason = models.CharField(_("reason"), max_length=200, default="", blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("requested by"),
    )
    requested_by_name = models.CharField(max_length=255, default="", blank=True)
    """Stays when the user goes."""
    source = models.CharField(_("asked in"), max_length=16, choices=Source.choices)
    selection = models.CharField(_("selection"), max_length=500, default="", blank=True)
    """The filter in words; no phone numbers."""
    stop_code = models.CharField(max_length=64, default="", blank=True)
    stop_message = models.CharField(max_length=500, default="", blank=True)
    undo_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="undone_by"
    )
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    request_sha256 = models.CharField(max_length=64, default="", blank=True)
    counts_at_rest = models.JSONField(null=True, blank=True, editable=False)
    """``counts()`` when it last finished, stopped or was cancelled. Lists show these."""
    lease_token = models.UUIDField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    """The moment of the intent: the newer one wins where two people disagree."""
    dispatched_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When another process was asked to carry it out. NULL: whoever looks at it does."""
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
        indexes = [models.Index(fields=["status", "id"], name="bland_sms_update_status")]

    def __str__(self) -> str:
        words = _("Update %s: reactivate") if self.is_active else _("Update %s: deactivate")
        return str(words % self.pk)

    @property
    def permission(self) -> str:
        """The verb's own permission."""
        verb = "reactivate" if self.is_active else "deactivate"
        return f"bland_sms.{verb}_conversation"

    def counts(self) -> dict[str, int]:
        """How many items are in each of the seven states, by one query."""
        found = dict(self.items.order_by().values_list("state").annotate(number=Count("pk")))
        return {state: found.get(state, 0) for state in BulkUpdateItem.State.values}

    def known_counts(self) -> dict[str, int]:
        """``counts()``; of an update at rest those that were kept, at the cost of no query."""
        is_moving = self.status in (self.Status.QUEUED, self.Status.RUNNING, self.Status.DRAFT)
        return self.counts() if is_moving or not self.counts_at_rest else self.counts_at_rest

    @property
    def has_live_lease(self) -> bool:
        """Whether some process is carrying it out right now."""
        return self.lease_until is not None and self.lease_until > timezone.now()


class BulkUpdateItem(models.Model):
    """One conversation of an update."""

    class State(models.TextChoices):
        WAITING = "waiting", pgettext_lazy("item", "Waiting")
        RUNNING = "running", pgettext_lazy("item", "Running")
        CHANGED = "changed", pgettext_lazy("item", "Changed")
        UNCHANGED = "unchanged", pgettext_lazy("item", "Already so")
        FAILED = "failed", pgettext_lazy("item", "Failed")
        UNKNOWN = "unknown", pgettext_lazy("item", "Unknown")
        CANCELLED = "cancelled", pgettext_lazy("item", "Cancelled")

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
    """What the row held when the answer was written."""
    attempts = models.IntegerField(_("attempts"), default=0)
    """Updates sent to Bland for this item, retries included."""
    not_before = models.DateTimeField(_("not before"), null=True, blank=True)
    http_status = models.IntegerField(_("HTTP status"), null=True, blank=True)
    error_code = models.CharField(_("code"), max_length=64, default="", blank=True)
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
            models.Index(fields=["conversation", "state"], name="bland_sms_item_conversation"),
            models.Index(fields=["state", "conversation"], name="bland_sms_item_open"),
        ]

    def __str__(self) -> str:
        return f"{self.conversation_id}: {self.state}"


OPEN_STATES = (BulkUpdateItem.State.WAITING, BulkUpdateItem.State.RUNNING)
