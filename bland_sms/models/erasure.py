"""The record of erasures: who erased how much when, and not whom."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Erasure(models.Model):
    """One person was forgotten. Only ``erasure`` writes here."""

    erased_at = models.DateTimeField(_("erased at"), default=timezone.now)
    requested_by_name = models.CharField(_("requested by"), max_length=255, default="", blank=True)
    """The operator's account on the machine, or the name given with ``--by``."""
    counts = models.JSONField(_("rows"), default=dict)
    """How many rows of which kind; see ``erasure.Forgotten``."""

    class Meta:
        verbose_name = _("erasure")
        verbose_name_plural = _("erasures")
        default_permissions = ("view", "add")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.erased_at:%Y-%m-%d}: {self.counts.get('conversations', 0)}"
