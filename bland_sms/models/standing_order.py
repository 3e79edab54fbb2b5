"""Standing orders: customers whose conversations are kept inactive, and what that led to."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..customers import MAX_KEY
from ..reasons import Failure
from .conversation import Conversation
from .fields import BytewiseCharField, UserKey
from .ledger import BulkUpdate

FINGERPRINT = "hmac:"
"""How the key of a customer begins who was forgotten and is still left alone."""


class StandingOrder(models.Model):
    """Keeps the conversations of one customer inactive. Only ``standing`` writes here."""

    class Source(models.TextChoices):
        ADMIN = "admin", _("Admin")
        API = "api", _("API")
        COMMAND = "command", _("Command")
        RULE = "rule", _("Rule")

    PERMISSION: ClassVar[str] = "bland_sms.add_standingorder"
    """Its author needs it when it is made, and each time that it is applied."""

    customer_key = BytewiseCharField(_("customer"), max_length=MAX_KEY)
    """As ``customers.customer_key`` says; of a person who was forgotten a keyed fingerprint."""
    agent_number = models.CharField(_("our number"), max_length=64, default="", blank=True)
    """``""``: all of our numbers."""
    reason = models.CharField(_("reason"), max_length=200)
    source = models.CharField(_("source"), max_length=16, choices=Source.choices)
    requested_by = UserKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("requested by"),
    )
    requested_by_name = models.CharField(max_length=255, default="", blank=True)
    """Stays when the user goes."""
    starts_at = models.DateTimeField(_("since"), default=timezone.now)
    until = models.DateTimeField(_("until"), null=True, blank=True)
    """NULL: for good."""
    spare_handed_off = models.BooleanField(
        _("leave alone what a person has taken over"), default=True
    )
    in_force = models.BooleanField(null=True, default=True, editable=False)
    """True until it is lifted or found to be expired, then NULL: so that the database keeps those
    in force unique. MariaDB and MySQL know no partial unique index."""
    lifted_at = models.DateTimeField(_("lifted at"), null=True, blank=True)
    lifted_by = UserKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("lifted by"),
    )
    lifted_by_name = models.CharField(max_length=255, default="", blank=True)
    applied_count = models.PositiveIntegerField(_("applied"), default=0)
    last_applied_at = models.DateTimeField(_("last applied"), null=True, blank=True)
    suspended_code = models.CharField(max_length=64, default="", blank=True)
    """Why it does nothing at present; ``""``: it acts."""
    suspended_params = models.JSONField(default=dict, blank=True, editable=False)
    suspended_at = models.DateTimeField(_("suspended at"), null=True, blank=True)
    renewed_at = models.DateTimeField(_("renewed at"), null=True, blank=True)
    """When a person last renewed it: what it did before does not count for its limits."""
    needs_review = models.BooleanField(_("to be reviewed"), default=False)
    """A rule made it, and no person has looked at it yet."""
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    request_sha256 = models.CharField(max_length=64, default="", blank=True)

    class Meta:
        verbose_name = _("standing order")
        verbose_name_plural = _("standing orders")
        default_permissions = ("view", "add")
        permissions = [("lift_standingorder", "Can lift standing orders")]
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["customer_key", "agent_number", "in_force"], name="bland_sms_order_in_force"
            ),
            models.UniqueConstraint(
                fields=["requested_by", "idempotency_key"], name="bland_sms_order_idempotency"
            ),
        ]
        indexes = [
            models.Index(fields=["in_force", "suspended_code", "id"], name="bland_sms_order_state"),
            models.Index(fields=["in_force", "until"], name="bland_sms_order_until"),
            models.Index(fields=["renewed_at"], name="bland_sms_order_renewed"),
        ]

    def __str__(self) -> str:
        return str(_("Standing order %s") % self.pk)

    @property
    def state(self) -> str:
        """``in_force``, ``suspended``, ``expired`` or ``lifted``."""
        if self.lifted_at is not None:
            return "lifted"
        if self.until is not None and self.until <= timezone.now():
            return "expired"
        return "suspended" if self.suspended_code else "in_force"

    @classmethod
    def in_state(cls, state: str) -> Q:
        """Orders whose ``state`` is this."""
        is_lifted, now = Q(lifted_at__isnull=False), timezone.now()
        if state == "lifted":
            return is_lifted
        if state == "expired":
            return Q(lifted_at__isnull=True, until__lte=now)
        return cls.acting() if state == "in_force" else cls.not_over() & Q(suspended_code__gt="")

    @property
    def customer(self) -> str:
        """The number or address; ``""`` of a person who was forgotten."""
        if self.customer_key.startswith(FINGERPRINT):
            return ""
        return f"+{self.customer_key}" if self.customer_key.isdigit() else self.customer_key

    @property
    def suspension(self) -> Failure:
        """Why it is suspended, to be worded when it is shown."""
        return Failure(self.suspended_code, self.suspended_params)

    @staticmethod
    def not_over(through: str = "", at: datetime | None = None) -> Q:
        """Orders that are neither lifted nor expired; suspended ones are among them.

        Args:
            through: From another model: the name of the relation, such as ``"order__"``.
        """
        until = f"{through}until"
        is_left = Q(**{f"{until}__isnull": True}) | Q(**{f"{until}__gt": at or timezone.now()})
        return is_left & Q(**{f"{through}in_force": True})

    @classmethod
    def acting(cls, through: str = "") -> Q:
        """Orders that act: not lifted, not expired, not suspended."""
        return cls.not_over(through) & Q(**{f"{through}suspended_code": ""})


class OrderApplication(models.Model):
    """A standing order had a conversation deactivated. Only ``standing`` writes here."""

    order = models.ForeignKey(
        StandingOrder, on_delete=models.CASCADE, related_name="applications", db_index=False
    )
    bulk_update = models.ForeignKey(
        BulkUpdate, on_delete=models.CASCADE, related_name="order_applications"
    )
    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="order_applications",
        verbose_name=_("conversation"),
    )
    state_updated_at = models.DateTimeField()
    """Of the active state that it was applied to, by Bland's clock: no state is acted on twice."""
    applied_at = models.DateTimeField(_("applied at"), default=timezone.now)

    class Meta:
        verbose_name = _("application of a standing order")
        verbose_name_plural = _("applications of standing orders")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "order", "state_updated_at"], name="bland_sms_applied_once"
            ),
        ]
        indexes = [
            models.Index(fields=["order", "applied_at"], name="bland_sms_applied_order"),
            models.Index(fields=["applied_at"], name="bland_sms_applied_at"),
        ]

    def __str__(self) -> str:
        return f"{self.order_id}: {self.conversation_id}"
