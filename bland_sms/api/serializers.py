"""Our rows as JSON, and the bodies that ask for something."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from django.urls import NoReverseMatch
from django.utils.translation import gettext as _
from rest_framework import serializers

from ..models import BulkUpdate, BulkUpdateItem, Conversation, Message
from ..models.conversation import Status as ConversationStatus
from ..payloads import EPOCH
from ..updates import Driver, driver_of
from .parsing import (
    ConversationIdsField,
    StrictBooleanField,
    StrictCharField,
    StrictSerializer,
)
from .permissions import may

Status = BulkUpdate.Status
TEXTS = ("last_message", "summary", "variables", "extra")
"""What people wrote, and what was made of it: for those who may read transcripts."""


class MomentField(serializers.DateTimeField):
    """A time in UTC; the epoch means that it was never told."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(read_only=True, format="iso-8601", default_timezone=timezone.utc, **kwargs)

    def to_representation(self, value: datetime | None) -> Any:
        return None if value is None or value == EPOCH else super().to_representation(value)


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    """A conversation as Bland last told it. Its texts are absent where they may not be read."""

    status = serializers.ChoiceField(ConversationStatus.choices, read_only=True)
    created_at = MomentField(allow_null=True)
    updated_at = MomentField(allow_null=True, help_text="By Bland's clock; null: never told.")
    last_activity_at = MomentField(allow_null=True)
    last_message_at = MomentField(allow_null=True)
    timed_out_at = MomentField(allow_null=True)
    human_handoff_at = MomentField(allow_null=True)
    copied_at = MomentField(
        source="observed_at", allow_null=True, help_text="When this was copied from Bland."
    )
    transcript_copied_at = MomentField(source="transcript_observed_at", allow_null=True)
    missing_since = MomentField(
        allow_null=True, help_text="Since when Bland does not find it under this key."
    )

    class Meta:
        model = Conversation
        fields = (
            "id",
            "user_number",
            "agent_number",
            "is_active",
            "status",
            "created_at",
            "updated_at",
            "last_activity_at",
            "last_message_at",
            "message_count",
            "channel",
            "pathway_id",
            "pathway_version",
            "current_node_id",
            "disposition_tag",
            "timed_out_at",
            "ended_by_end_call_node",
            "human_handoff_at",
            "copied_at",
            "transcript_copied_at",
            "missing_since",
            *TEXTS,
        )
        read_only_fields = fields

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()
        request = self.context.get("request")
        is_schema = getattr(self.context.get("view"), "swagger_fake_view", False)
        if not is_schema and not (request and may(request.user, "view_transcript")):
            for name in TEXTS:
                del fields[name]
        return fields


class MessageSerializer(serializers.ModelSerializer[Message]):
    """One message of a transcript."""

    id = serializers.CharField(source="bland_id", read_only=True)
    created_at = MomentField(allow_null=True)

    class Meta:
        model = Message
        fields = ("id", "sender", "text", "status", "error_code", "created_at", "attachments")
        read_only_fields = fields


class BulkUpdateSerializer(serializers.ModelSerializer[BulkUpdate]):
    """Something that was asked of Bland, and how it stands."""

    requested_by = serializers.CharField(source="requested_by_name", read_only=True)
    created_at = MomentField()
    started_at = MomentField(allow_null=True)
    finished_at = MomentField(allow_null=True)
    driver = serializers.SerializerMethodField(
        help_text="`done`; `worker`: somebody else carries out the rest; `nobody`: see `next_step`."
    )
    next_step = serializers.SerializerMethodField(help_text="What to do, or an empty text.")
    total = serializers.IntegerField(read_only=True, default=None, allow_null=True)
    counts = serializers.SerializerMethodField(
        help_text="Conversations by state. Null in a list while it is carried out."
    )

    class Meta:
        model = BulkUpdate
        fields = (
            "id",
            "is_active",
            "status",
            "driver",
            "next_step",
            "total",
            "counts",
            "reason",
            "requested_by",
            "source",
            "selection",
            "stop_code",
            "stop_message",
            "undo_of",
            "created_at",
            "started_at",
            "finished_at",
        )
        read_only_fields = fields

    def get_driver(self, bulk_update: BulkUpdate) -> Driver:
        return driver_of(bulk_update)

    def get_next_step(self, bulk_update: BulkUpdate) -> str:
        if driver_of(bulk_update) != "nobody":
            return ""
        url = self._url_of("continue", bulk_update)
        if bulk_update.status == Status.STOPPED:
            return _("Stopped: mend what is wrong, then POST %s") % url
        return _("Run manage.py bland_sms_work, or POST %s") % url

    def to_representation(self, bulk_update: BulkUpdate) -> Any:
        shown = super().to_representation(bulk_update)
        counts = shown["counts"]
        return {**shown, "total": None if counts is None else sum(counts.values())}

    def get_counts(self, bulk_update: BulkUpdate) -> dict[str, int] | None:
        if self.parent is None:
            return bulk_update.known_counts()
        # Counting the items of every update of a page would take longer than the page.
        is_moving = bulk_update.status in (Status.QUEUED, Status.RUNNING)
        return None if is_moving else bulk_update.counts_at_rest

    def _url_of(self, action: str, bulk_update: BulkUpdate) -> str:
        try:
            return str(self.context["view"].reverse_action(action, args=[bulk_update.pk]))
        except (KeyError, NoReverseMatch):
            return f".../{bulk_update.pk}/{action}/"


class ItemSerializer(serializers.ModelSerializer[BulkUpdateItem]):
    """What became of one conversation of an update."""

    conversation_id = serializers.CharField(read_only=True)
    not_before = MomentField(allow_null=True)
    finished_at = MomentField(allow_null=True)

    class Meta:
        model = BulkUpdateItem
        fields = (
            "id",
            "conversation_id",
            "state",
            "previous_is_active",
            "attempts",
            "not_before",
            "http_status",
            "error_code",
            "message",
            "finished_at",
        )
        read_only_fields = fields


class ChangeSerializer(StrictSerializer):
    """What can be asked for a conversation."""

    is_active = StrictBooleanField(help_text="false deactivates, true reactivates.")


class NewUpdateSerializer(StrictSerializer):
    """What can be asked for many conversations at once."""

    is_active = StrictBooleanField(help_text="false deactivates, true reactivates.")
    conversation_ids = ConversationIdsField()
    reason = StrictCharField(max_length=200, allow_blank=True, default="")


class EmptySerializer(StrictSerializer):
    """Nothing: the address says it all."""


class RefusalSerializer(serializers.Serializer[Mapping[str, Any]]):
    """Any answer that is no success."""

    code = serializers.CharField(help_text="For programs: the same word as an item's error_code.")
    detail = serializers.CharField(help_text="For people.")
    bland_code = serializers.CharField(required=False, help_text="Bland's own word.")
    http_status = serializers.IntegerField(required=False, help_text="Bland's own status.")
    bulk_update = serializers.IntegerField(required=False, help_text="The update that it is in.")
    state = serializers.ChoiceField(
        BulkUpdateItem.State.choices,
        required=False,
        help_text="How the conversation stands in that update; `waiting`: still to be done.",
    )
    fields = serializers.DictField(required=False)  # type: ignore[assignment]
