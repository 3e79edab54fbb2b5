"""Conversations that could not be copied yet, and when to ask Bland for them again."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from .fields import BlandIdField


class OwedLook(models.Model):
    """One conversation that Bland is to be asked for. Only ``sync`` writes here."""

    class Reason(models.TextChoices):
        DETAIL_FAILED = "detail_failed", pgettext_lazy("owed look", "Could not be fetched")
        NO_TIME = "no_time", pgettext_lazy("owed look", "Listed without a usable time")
        REFUSED = "refused", pgettext_lazy("owed look", "Refused by the database")
        STANDING_ORDER = "standing_order", pgettext_lazy("owed look", "For a standing order")
        NOT_LISTED = "not_listed", pgettext_lazy("owed look", "Not in the list any more")

    conversation = BlandIdField(_("conversation id"), max_length=128)
    """Bland's id. No foreign key: a row that the database refused is not there."""
    reason = models.CharField(_("reason"), max_length=16, choices=Reason.choices)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    not_before = models.DateTimeField(_("not before"), default=timezone.now)
    error_code = models.CharField(_("error code"), max_length=64, default="", blank=True)
    """Why the last attempt failed."""
    changed_at = models.DateTimeField(null=True, blank=True, editable=False)
    """By Bland's clock: the change that is not in the mirror. No watermark passes it."""
    added_at = models.DateTimeField(_("added at"), default=timezone.now)

    class Meta:
        verbose_name = _("conversation to copy again")
        verbose_name_plural = _("conversations to copy again")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "reason"], name="bland_sms_owed_conversation"
            )
        ]
        indexes = [models.Index(fields=["reason", "not_before"], name="bland_sms_owed_due")]

    def __str__(self) -> str:
        return f"{self.conversation} {self.reason}"
