"""The log of webhook deliveries: which conversation each names, not what it says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from ..leases import Leased
from ..reasons import Failure
from .fields import BlandIdField


class WebhookDelivery(Leased):
    """One verified webhook of Bland's. Its body is not kept: it is people's text, and all that we
    need of it is the conversation's id. Only ``webhooks`` writes here."""

    LEASE: ClassVar[timedelta] = timedelta(minutes=2)

    class State(models.TextChoices):
        RECEIVED = "received", pgettext_lazy("delivery", "Waiting")
        PROCESSED = "processed", pgettext_lazy("delivery", "Processed")
        FAILED = "failed", pgettext_lazy("delivery", "Failed")
        IGNORED = "ignored", pgettext_lazy("delivery", "Ignored")

    body_sha256 = models.CharField(max_length=64, unique=True, editable=False)
    """Tells whether the same body came before."""
    conversation_id = BlandIdField(_("conversation id"), default="", blank=True)
    """Empty: the body has no valid conversation id."""
    kind = models.CharField(_("kind"), max_length=32, default="", blank=True)
    """``message``, ``status``, or ``call``: the webhooks of a day that are about phone calls."""
    count = models.IntegerField(_("count"), default=1)
    """How many webhooks this row stands for: more than one only for ``call``."""
    status = models.CharField(_("status"), max_length=64, default="", blank=True)
    """Of a status webhook: ``ended``, ``timeout``, ``read`` and so on. Never mapped to a state."""
    reason = models.CharField(_("reason"), max_length=200, default="", blank=True)
    """Bland's words for why, from ``reason`` or ``status_reason``."""
    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.RECEIVED
    )
    attempts = models.IntegerField(_("attempts"), default=0)
    """How often Bland was asked without success since it came. Neither a crash of ours nor an
    outage of Bland's counts."""
    crashes = models.IntegerField(default=0, editable=False)
    """How many processes crashed while they copied the conversation."""
    error = models.CharField(_("error"), max_length=64, default="", blank=True)
    """The code of what went wrong."""
    error_params = models.JSONField(default=dict, blank=True, editable=False)
    """Parameters of its sentence."""
    claimed_conversation = BlandIdField(null=True, blank=True, unique=True, editable=False)
    """The id while a process copies it, else NULL: one at a time for each conversation."""
    asked_at = models.DateTimeField(null=True, blank=True, editable=False)
    """Ours: when Bland was last asked for the conversation because of this."""
    not_before = models.DateTimeField(null=True, blank=True, editable=False)
    """When it is due; NULL: now."""
    put_off_at = models.DateTimeField(null=True, blank=True, editable=False)
    """Ours: when ``not_before`` was decided. Ahead of now: by a wrong clock."""
    received_at = models.DateTimeField(_("received at"), default=timezone.now)
    processed_at = models.DateTimeField(_("processed at"), null=True, blank=True)

    ANEW: ClassVar[dict[str, Any]] = {
        "state": State.RECEIVED,
        "attempts": 0,
        "crashes": 0,
        "error": "",
        "error_params": {},
        "not_before": None,
        "processed_at": None,
    }
    """What a delivery is set to that is to be carried out again."""

    class Meta:
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        default_permissions = ("view",)
        permissions = [("reprocess_webhookdelivery", "Can process webhook deliveries again")]
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["state", "id"], name="bland_sms_delivery_state"),
            models.Index(fields=["conversation_id", "asked_at"], name="bland_sms_delivery_asked"),
            models.Index(fields=["asked_at"], name="bland_sms_delivery_last_asked"),
            models.Index(fields=["received_at"], name="bland_sms_delivery_received"),
        ]

    def __str__(self) -> str:
        return f"{self.conversation_id or '?'}: {self.get_state_display()}"

    @property
    def failure(self) -> Failure:
        """What went wrong, to be worded when it is shown."""
        return Failure(self.error, self.error_params)
