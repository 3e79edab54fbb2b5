"""The lines of a pasted list: how each was read, and which customer it was found to be."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from ..reasons import Failure
from .conversation import Conversation
from .ledger import BulkUpdate


class PastedLine(models.Model):
    """One line of the list that an update was made from. Only ``updates`` writes here.

    It holds the number, address or id of the line and nothing that stood beside it, such as a
    name: only so can an erasure find all of a person.
    """

    class State(models.TextChoices):
        FOUND = "found", pgettext_lazy("pasted line", "Found")
        ALREADY = "already", pgettext_lazy("pasted line", "Already so")
        NOT_FOUND = "not_found", pgettext_lazy("pasted line", "Not found")
        TWICE = "twice", pgettext_lazy("pasted line", "Twice")
        AMBIGUOUS = "ambiguous", pgettext_lazy("pasted line", "Ambiguous")
        NOT_ALLOWED = "not_allowed", pgettext_lazy("pasted line", "Not allowed")
        NOT_READ = "not_read", pgettext_lazy("pasted line", "Not read")

    bulk_update = models.ForeignKey(
        BulkUpdate, on_delete=models.CASCADE, related_name="pasted_lines", db_index=False
    )
    number = models.PositiveIntegerField(_("line"))
    """Its place in what was pasted, from 1; empty lines are counted and not kept."""
    text = models.CharField(_("text"), max_length=255, default="", blank=True)
    state = models.CharField(_("state"), max_length=16, choices=State.choices)
    code = models.CharField(max_length=64, default="", blank=True)
    """Why it could not be read."""
    same_as = models.PositiveIntegerField(null=True, blank=True)
    """Of a line that comes twice: the number of the first one."""
    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        blank=True,
        related_name="+",
    )
    """The newest one of the customer. No database constraint, as with the items of updates."""
    conversations = models.PositiveIntegerField(default=0)
    """How many conversations of the update it stands for."""
    candidates = models.JSONField(default=list, blank=True, editable=False)
    """Of an ambiguous line: the keys of the customers that it may mean."""

    class Meta:
        verbose_name = _("pasted line")
        verbose_name_plural = _("pasted lines")
        default_permissions = ()
        ordering = ["bulk_update", "number"]
        constraints = [
            models.UniqueConstraint(fields=["bulk_update", "number"], name="bland_sms_line_once"),
        ]
        indexes = [
            models.Index(fields=["bulk_update", "state", "number"], name="bland_sms_line_state"),
        ]

    def __str__(self) -> str:
        return f"{self.number}: {self.state}"

    @property
    def failure(self) -> Failure:
        """Why it could not be read, to be worded when it is shown."""
        return Failure(self.code)
