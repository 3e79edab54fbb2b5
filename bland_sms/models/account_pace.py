"""How fast the account may be asked, and who of its processes asks how much of it."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class AccountPace(models.Model):
    """One row, of no lasting worth. Only ``pacing`` writes here, a few bytes about once a second
    while Bland is asked for much."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    version = models.PositiveBigIntegerField(default=0)
    """Who writes the row names the version that was read: of two, one reads it again."""
    state = models.JSONField(default=dict, blank=True)
    """``pacing.shares.State``."""

    class Meta:
        verbose_name = _("pace of the account")
        verbose_name_plural = _("pace of the account")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.state)
