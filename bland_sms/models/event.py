"""What happened to conversations, and how often on each day."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from .conversation import Conversation, Source, Status


class ConversationEvent(models.Model):
    """One change of a conversation's state. Only ``mirror`` writes here.

    A conversation's columns say what it is now; these rows say what it was before. They follow
    from the set of Bland's answers alone, so answers in any order end in the same events.
    """

    class Kind(models.TextChoices):
        """In the order in which those of one moment happened."""

        STARTED = "started", pgettext_lazy("event", "Started")
        REACTIVATED = "reactivated", pgettext_lazy("event", "Reactivated")
        HANDED_OFF = "handed_off", pgettext_lazy("event", "Handed to a person")
        TAKEN_BACK = "taken_back", pgettext_lazy("event", "Given back to the agent")
        ASKED_TO_STOP = "asked_to_stop", pgettext_lazy("event", "Asked to stop")
        TIMED_OUT = "timed_out", pgettext_lazy("event", "Timed out")
        COMPLETED = "completed", pgettext_lazy("event", "Completed")
        DEACTIVATED = "deactivated", pgettext_lazy("event", "Deactivated")

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="events", db_index=False
    )
    kind = models.CharField(_("event"), max_length=16, choices=Kind.choices)
    at = models.DateTimeField(_("when"))
    """By Bland's clock: the time that Bland gives the event itself, such as ``timed_out_at``, else
    the ``updated_at`` of the first answer that shows it."""
    observed_at = models.DateTimeField(_("copied at"))
    """Ours: when the first request was sent whose answer told it."""
    source = models.SmallIntegerField(_("told by"), choices=Source.choices)
    """Which of Bland's answers that was."""
    from_status = models.CharField(_("before"), max_length=16, choices=Status.choices, blank=True)
    """Empty: the conversation did not exist."""
    to_status = models.CharField(_("after"), max_length=16, choices=Status.choices)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "at", "kind"], name="bland_sms_event_once"
            )
        ]
        indexes = [
            models.Index(fields=["kind", "at", "conversation"], name="bland_sms_event_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.conversation_id}: {self.get_kind_display()}"


class Total(models.Model):
    """How often something happened in a closed day or month. Only ``summary`` writes here."""

    kind = models.CharField(max_length=24)
    """A :class:`ConversationEvent.Kind`, or one of those of ``summary.Measure``."""
    agent_number = models.CharField(max_length=64, default="", blank=True)
    requested_by_name = models.CharField(max_length=255, default="", blank=True)
    """Of what staff did: who."""
    reason = models.CharField(max_length=200, default="", blank=True)
    """Of what staff did: why."""
    count = models.IntegerField(default=0)
    seconds = models.BigIntegerField(default=0)
    """Of hand-offs: how long they took since the conversations started, added up."""

    class Meta:
        abstract = True


class DailyTotal(Total):
    """How often something happened on one closed day."""

    day = models.DateField()
    """In the time zone ``TIME_ZONE``."""

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["kind", "day"], name="bland_sms_total_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.kind}: {self.count}"


class MonthlyTotal(Total):
    """The daily totals of a month that is over, added up: a year is read from these."""

    month = models.DateField()
    """Its first day."""

    class Meta:
        default_permissions = ()
        indexes = [models.Index(fields=["month", "kind"], name="bland_sms_total_month")]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m} {self.kind}: {self.count}"


class UncountedDay(models.Model):
    """A note that a day's totals must be counted, or counted again.

    Whatever changes the numbers of a day adds one in its own transaction, and never waits for
    another process that does the same; counting a day deletes the notes that it has seen.
    """

    day = models.DateField(db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.day)


class UncountedMonth(models.Model):
    """The same of a month, whose daily totals have changed."""

    month = models.DateField(db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


def day_of(moment: datetime) -> date:
    """The day of a moment, in the time zone ``TIME_ZONE``."""
    return moment.astimezone(timezone.get_default_timezone()).date()


def day_begins(day: date) -> datetime:
    """Its first moment, in the time zone ``TIME_ZONE``."""
    return datetime.combine(day, time.min, timezone.get_default_timezone())


def day_ends(day: date) -> datetime:
    """The first moment of the next one."""
    return day_begins(day + timedelta(days=1))
