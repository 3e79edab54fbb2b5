"""The log of webhooks: who rang, not what they said."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from .fields import BlandIdField


class WebhookDelivery(models.Model):
    """One verified call of Bland's. The body is not kept: it is people's text, and a doorbell
    needs none. Only ``deliveries`` writes here."""

    class State(models.TextChoices):
        RECEIVED = "received", pgettext_lazy("delivery", "Waiting")
        PROCESSED = "processed", pgettext_lazy("delivery", "Processed")
        FAILED = "failed", pgettext_lazy("delivery", "Failed")
        IGNORED = "ignored", pgettext_lazy("delivery", "Ignored")

    body_sha256 = models.CharField(max_length=64, unique=True, editable=False)
    """A body that comes again is known by this."""
    conversation_id = BlandIdField(_("conversation id"), default="", blank=True)
    """Empty: it named none that could be one."""
    kind = models.CharField(_("kind"), max_length=32, default="", blank=True)
    """``message`` or ``status``."""
    status = models.CharField(_("status"), max_length=64, default="", blank=True)
    """Of a status webhook: ``ended``, ``timeout``, ``read`` and so on. Never mapped to a state."""
    reason = models.CharField(_("reason"), max_length=200, default="", blank=True)
    """Bland's words for why, from ``reason`` or ``status_reason``."""
    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.RECEIVED
    )
    attempts = models.IntegerField(_("attempts"), default=0)
    """How often Bland was asked in vain, or is being asked, since it came."""
    error = models.CharField(_("error"), max_length=500, default="", blank=True)
    claimed_conversation = BlandIdField(null=True, blank=True, unique=True, editable=False)
    """The id while somebody copies it, else NULL: one at a time for each conversation."""
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    asked_at = models.DateTimeField(null=True, blank=True, editable=False)
    """Ours: when Bland was last asked for the conversation because of this."""
    not_before = models.DateTimeField(null=True, blank=True, editable=False)
    received_at = models.DateTimeField(_("received at"), default=timezone.now)
    processed_at = models.DateTimeField(_("processed at"), null=True, blank=True)

    class Meta:
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        default_permissions = ("view",)
        permissions = [("reprocess_webhookdelivery", "Can process webhook deliveries again")]
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["state", "id"], name="bland_sms_delivery_state"),
            models.Index(fields=["conversation_id", "asked_at"], name="bland_sms_delivery_asked"),
            models.Index(fields=["received_at"], name="bland_sms_delivery_received"),
        ]

    def __str__(self) -> str:
        return f"{self.conversation_id or '?'}: {self.get_state_display()}"
