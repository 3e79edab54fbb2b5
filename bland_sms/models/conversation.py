"""The mirror: a Bland account's conversations and their messages."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Case, Q, Value, When
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from ..customers import MAX_KEY, customer_key, digits_of
from ..payloads import EPOCH
from .fields import BlandIdField, BytewiseCharField


class Status(models.TextChoices):
    """What a conversation's columns add up to."""

    ACTIVE = "active", pgettext_lazy("conversation", "Active")
    HANDED_OFF = "handed_off", pgettext_lazy("conversation", "With a person")
    TIMED_OUT = "timed_out", pgettext_lazy("conversation", "Timed out")
    COMPLETED = "completed", pgettext_lazy("conversation", "Completed")
    INACTIVE = "inactive", pgettext_lazy("conversation", "Inactive")


class Source(models.IntegerChoices):
    """Which of Bland's answers told a value. At equal age the larger one is believed."""

    NONE = 0, "none"
    LIST = 1, "list"
    DETAIL = 2, "detail"
    UPDATE = 3, "update"


class Conversation(models.Model):
    """One of Bland's SMS conversations, as Bland last told it. Only ``mirror`` writes here."""

    id = BlandIdField(_("conversation id"), primary_key=True)
    user_number = models.CharField(_("customer"), max_length=64, default="", blank=True)
    agent_number = models.CharField(_("our number"), max_length=64, default="", blank=True)
    is_active = models.BooleanField(_("active"), default=True)
    created_at = models.DateTimeField(_("created at"), null=True, blank=True)
    updated_at = models.DateTimeField(_("updated at"), default=EPOCH)
    """By Bland's clock. The epoch: Bland never told."""
    timed_out_at = models.DateTimeField(_("timed out at"), null=True, blank=True)
    ended_by_end_call_node = models.BooleanField(_("ended by an end node"), default=False)
    message_count = models.IntegerField(_("messages"), null=True, blank=True)
    """NULL: Bland never told."""
    last_message = models.TextField(_("last message"), default="", blank=True)
    last_message_at = models.DateTimeField(_("last message at"), null=True, blank=True)
    channel = models.CharField(_("channel"), max_length=32, default="", blank=True)
    pathway_id = models.CharField(_("pathway id"), max_length=255, default="", blank=True)
    pathway_version = models.CharField(_("pathway version"), max_length=255, default="", blank=True)
    current_node_id = models.CharField(_("current node id"), max_length=255, default="", blank=True)
    summary = models.TextField(_("summary"), default="", blank=True)
    disposition_tag = models.CharField(_("disposition"), max_length=255, default="", blank=True)
    variables = models.JSONField(_("variables"), null=True, blank=True)
    extra = models.JSONField(_("other fields"), default=dict, blank=True)
    """Whatever Bland sent that has no column: at most 200 fields, those that it told last."""
    human_handoff_at = models.DateTimeField(_("handed to a person at"), null=True, blank=True)

    last_activity_at = models.DateTimeField(_("last activity"), default=EPOCH, editable=False)
    customer_key = BytewiseCharField(max_length=MAX_KEY, default="", editable=False)
    """The customer, whatever the notation of ``user_number``; ``""``: not known."""
    user_digits_reversed = BytewiseCharField(max_length=64, default="", editable=False)
    """For searches by the last digits."""
    status = models.GeneratedField(
        verbose_name=_("status"),
        expression=Case(
            When(
                Q(is_active=True, human_handoff_at__isnull=False),
                then=Value(Status.HANDED_OFF.value),
            ),
            When(is_active=True, then=Value(Status.ACTIVE.value)),
            When(timed_out_at__isnull=False, then=Value(Status.TIMED_OUT.value)),
            When(ended_by_end_call_node=True, then=Value(Status.COMPLETED.value)),
            default=Value(Status.INACTIVE.value),
        ),
        output_field=models.CharField(max_length=16),
        db_persist=True,
    )

    # The ages of law 1. State is ``is_active`` and ``updated_at``, facts are all other columns.
    observed_at = models.DateTimeField(_("copied at"), default=EPOCH, editable=False)
    observed_from = models.SmallIntegerField(
        choices=Source.choices, default=Source.NONE, editable=False
    )
    facts_updated_at = models.DateTimeField(default=EPOCH, editable=False)
    facts_observed_at = models.DateTimeField(default=EPOCH, editable=False)
    facts_observed_from = models.SmallIntegerField(
        choices=Source.choices, default=Source.NONE, editable=False
    )
    older_facts = models.JSONField(default=dict, editable=False)
    """Ages of those facts that the newest payload did not mention: name to age, as text."""
    event_history = models.JSONField(default=dict, editable=False)
    """What ``ConversationEvent`` follows from: see ``mirror.history``."""
    listed = models.CharField(max_length=16, default="", editable=False)
    """Fingerprint of a row of the list with whose every word this row agrees. ``""``: none is
    known. A walk does not write what it is told once more."""
    transcript_observed_at = models.DateTimeField(null=True, blank=True, editable=False)
    missing_since = models.DateTimeField(_("not found since"), null=True, blank=True)
    erased_at = models.DateTimeField(_("erased at"), null=True, blank=True, editable=False)
    """When its person was forgotten: from then on only the state is copied."""

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        default_permissions = ("view",)
        permissions = [
            ("view_transcript", "Can read the messages of conversations"),
            ("deactivate_conversation", "Can deactivate conversations"),
            ("reactivate_conversation", "Can reactivate conversations"),
            ("refresh_conversation", "Can refresh conversations from Bland"),
            ("export_conversation", "Can export conversations"),
        ]
        indexes = [
            models.Index(fields=["last_activity_at", "id"], name="bland_sms_conv_activity"),
            models.Index(fields=["status", "last_activity_at", "id"], name="bland_sms_conv_status"),
            models.Index(
                fields=["agent_number", "last_activity_at", "id"], name="bland_sms_conv_agent"
            ),
            # Lists by status and our number, and what is active now, counted by our number.
            models.Index(
                fields=["status", "agent_number", "last_activity_at", "id"],
                name="bland_sms_conv_status_agent",
            ),
            models.Index(fields=["user_number", "id"], name="bland_sms_conv_user"),
            models.Index(fields=["customer_key", "id"], name="bland_sms_conv_customer"),
            models.Index(fields=["user_digits_reversed"], name="bland_sms_conv_suffix"),
            models.Index(fields=["created_at", "id"], name="bland_sms_conv_created"),
            models.Index(fields=["updated_at", "id"], name="bland_sms_conv_updated"),
            # The API lists by Bland's clock: without these a filter sorts all that match it.
            models.Index(
                fields=["is_active", "updated_at", "id"], name="bland_sms_conv_active_upd"
            ),
            models.Index(fields=["status", "updated_at", "id"], name="bland_sms_conv_status_upd"),
            models.Index(
                fields=["agent_number", "updated_at", "id"], name="bland_sms_conv_agent_upd"
            ),
            models.Index(fields=["missing_since"], name="bland_sms_conv_missing"),
        ]

    def __str__(self) -> str:
        last_digits = self.user_digits_reversed[:4][::-1]
        # In words: "…0001" is read out as a number of its own.
        words = gettext("%(id)s (customer: ends in %(end)s)") if last_digits else "%(id)s"
        return words % {"id": self.id, "end": last_digits}

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.derive()
        self.listed = ""
        super().save(*args, **kwargs)

    def derive(self) -> None:
        """Fill the columns that follow from others; the database derives ``status`` itself."""
        self.last_activity_at = self.last_message_at or self.created_at or self.updated_at
        self.customer_key = customer_key(self.user_number)
        self.user_digits_reversed = digits_of(self.user_number)[::-1][:64]

    @property
    def status_label(self) -> str:
        """``status`` in words; a generated field has no ``get_status_display``."""
        return str(Status(self.status).label)


SYNTHETIC_TEXT = "<Call Connected>"
"""Bland's own first "message" of some threads; no person wrote it, and it is not shown."""


class Message(models.Model):
    """One message of a conversation's transcript. Only ``mirror`` writes here."""

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="messages", db_index=False
    )
    bland_id = BlandIdField(max_length=255)
    position = models.IntegerField()
    """Its place in Bland's own order, from 0."""
    sender = models.CharField(_("sender"), max_length=32)
    """Upper case: USER, AGENT, HUMAN, or anything new."""
    text = models.TextField(_("text"), default="", blank=True)
    status = models.CharField(_("delivery"), max_length=64, default="", blank=True)
    error_code = models.CharField(_("error code"), max_length=64, default="", blank=True)
    created_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    attachments = models.JSONField(_("attachments"), null=True, blank=True)
    extra = models.JSONField(_("other fields"), default=dict, blank=True)
    """Whatever Bland sent that has no column, such as ``app_card``."""
    occurrence = models.IntegerField(default=0)
    """Of ``bland_id`` in the thread, from 0: an id may come twice."""

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        default_permissions = ()
        ordering = ["conversation", "position"]
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "bland_id", "occurrence"], name="bland_sms_message_bland_id"
            ),
        ]
        indexes = [
            models.Index(fields=["conversation", "position"], name="bland_sms_message_position")
        ]

    def __str__(self) -> str:
        return f"{self.conversation_id} {self.position}"
