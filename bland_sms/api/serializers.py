"""Serializers: rows as JSON, and the bodies of requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from django.urls import NoReverseMatch
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from rest_framework import serializers

from .. import standing
from ..dispatching import Driver, driver_of
from ..models import BulkUpdate, BulkUpdateItem, Conversation, Message, StandingOrder
from ..models.conversation import Status as ConversationStatus
from ..payloads import EPOCH
from ..selections import selection_words
from ..sync import copied_at, last_full_walk_at
from ..visible import visible_items
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


def _may_read_words(context: Mapping[str, Any]) -> bool:
    """Whether the user may read Bland's own words, which may quote messages."""
    request = context.get("request")
    return request is not None and may(request.user, "view_transcript")


class MomentField(serializers.DateTimeField):
    """A time in UTC; the epoch means that it was never told."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(read_only=True, format="iso-8601", default_timezone=timezone.utc, **kwargs)

    def to_representation(self, value: datetime | None) -> Any:
        return None if value is None or value == EPOCH else super().to_representation(value)


class CopiedAtField(MomentField):
    """When a conversation was copied from Bland, or told once more as it was copied."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(source="*", **kwargs)

    def to_representation(self, value: Any) -> Any:
        return super().to_representation(copied_at(value, lambda: self._walked_at))

    @cached_property
    def _walked_at(self) -> datetime | None:
        """Asked for once for all rows of an answer."""
        return last_full_walk_at()


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    """A conversation as Bland last told it. Its texts are absent where they may not be read."""

    status = serializers.ChoiceField(ConversationStatus.choices, read_only=True)
    created_at = MomentField(allow_null=True)
    updated_at = MomentField(allow_null=True, help_text="By Bland's clock; null: never told.")
    last_activity_at = MomentField(allow_null=True)
    last_message_at = MomentField(allow_null=True)
    timed_out_at = MomentField(allow_null=True)
    human_handoff_at = MomentField(allow_null=True)
    copied_at = CopiedAtField(allow_null=True, help_text="When this was copied from Bland.")
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
        extra_kwargs = {"message_count": {"help_text": "As Bland counts; null: never told."}}

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
        fields = (
            "id",
            "occurrence",
            "sender",
            "text",
            "status",
            "error_code",
            "created_at",
            "attachments",
            "extra",
        )
        read_only_fields = fields


class BulkUpdateSerializer(serializers.ModelSerializer[BulkUpdate]):
    """Something that was asked of Bland, and how it stands."""

    requested_by = serializers.CharField(source="requested_by_name", read_only=True)
    created_at = MomentField()
    started_at = MomentField(allow_null=True)
    finished_at = MomentField(allow_null=True)
    driver = serializers.SerializerMethodField(
        help_text="`done`; `worker`: a worker carries out the rest; `none`: see `next_step`."
    )
    next_step = serializers.SerializerMethodField(help_text="What to do, or an empty text.")
    stop_message = serializers.SerializerMethodField(help_text="Why it stopped, for people.")
    total = serializers.IntegerField(read_only=True, default=None, allow_null=True)
    selection = serializers.SerializerMethodField(
        help_text="What it was selected by, in words; no phone numbers."
    )
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

    def get_selection(self, bulk_update: BulkUpdate) -> str:
        return selection_words(bulk_update.selection)

    def get_stop_message(self, bulk_update: BulkUpdate) -> str:
        return bulk_update.stop.told(_may_read_words(self.context)).as_sentence

    def get_next_step(self, bulk_update: BulkUpdate) -> str:
        if driver_of(bulk_update) != "none":
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
        visible = self.context["view"].get_conversations()
        if visible is not None:
            items = visible_items(bulk_update.items.all(), visible)
            return bulk_update.counts(items) if self.parent is None else None
        if self.parent is None:
            return bulk_update.known_counts()
        # Counting the items of every update of a page would take longer than the page.
        is_moving = bulk_update.status in Status.OPEN
        return None if is_moving else bulk_update.counts_at_rest

    def _url_of(self, action: str, bulk_update: BulkUpdate) -> str:
        try:
            return str(self.context["view"].reverse_action(action, args=[bulk_update.pk]))
        except (KeyError, NoReverseMatch):
            return f".../{bulk_update.pk}/{action}/"


class ItemSerializer(serializers.ModelSerializer[BulkUpdateItem]):
    """What became of one conversation of an update."""

    conversation_id = serializers.CharField(read_only=True)
    message = serializers.SerializerMethodField(
        help_text="Bland's own words; our sentence for those who may not read transcripts."
    )
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

    def get_message(self, item: BulkUpdateItem) -> str:
        if not item.message or _may_read_words(self.context):
            return item.message
        return item.failure.told(with_words=False).as_sentence


class StandingOrderSerializer(serializers.ModelSerializer[StandingOrder]):
    """A customer whose conversations are kept inactive."""

    customer = serializers.SerializerMethodField(
        help_text="Number or address; empty without view_conversation, or if erased."
    )
    state = serializers.ChoiceField(("in_force", "suspended", "expired", "lifted"), read_only=True)
    requested_by = serializers.CharField(source="requested_by_name", read_only=True)
    lifted_by = serializers.CharField(source="lifted_by_name", read_only=True)
    starts_at = MomentField()
    until = MomentField(allow_null=True, help_text="null: for good.")
    lifted_at = MomentField(allow_null=True)
    last_applied_at = MomentField(allow_null=True)
    suspended_at = MomentField(allow_null=True)
    suspended_message = serializers.SerializerMethodField(help_text="The same for people.")

    class Meta:
        model = StandingOrder
        fields = (
            "id",
            "customer",
            "agent_number",
            "state",
            "reason",
            "requested_by",
            "source",
            "starts_at",
            "until",
            "spare_handed_off",
            "applied_count",
            "last_applied_at",
            "suspended_code",
            "suspended_message",
            "suspended_at",
            "lifted_at",
            "lifted_by",
        )
        read_only_fields = fields

    def get_customer(self, order: StandingOrder) -> str:
        request = self.context.get("request")
        may_see = request is not None and may(request.user, "view_conversation")
        return order.customer if may_see else ""

    def get_suspended_message(self, order: StandingOrder) -> str:
        request = self.context.get("request")
        return standing.suspended_words(order, request.build_absolute_uri if request else str)


class NewOrderSerializer(StrictSerializer):
    """What a standing order may say."""

    customer = StrictCharField(
        max_length=255, allow_blank=True, help_text="A number or address in any notation."
    )
    reason = StrictCharField(max_length=200, allow_blank=True, help_text="Not empty.")
    agent_number = StrictCharField(
        max_length=64, allow_blank=True, default="", help_text="Our number; empty: all of them."
    )
    until = serializers.DateTimeField(
        allow_null=True, default=None, default_timezone=timezone.utc, help_text="null: for good."
    )
    spare_handed_off = StrictBooleanField(
        default=True, help_text="Leave alone what a person has taken over."
    )


class ReasonSerializer(StrictSerializer):
    """Why an update is asked for."""

    reason = StrictCharField(max_length=200, allow_blank=True, default="")


class ChangeSerializer(ReasonSerializer):
    """What can be asked for a conversation."""

    is_active = StrictBooleanField(help_text="false deactivates, true reactivates.")


class NewUpdateSerializer(ReasonSerializer):
    """What can be asked for many conversations at once."""

    is_active = StrictBooleanField(help_text="false deactivates, true reactivates.")
    conversation_ids = ConversationIdsField()


class EmptySerializer(StrictSerializer):
    """Nothing: the address says it all."""


class RefusalSerializer(serializers.Serializer[Mapping[str, Any]]):
    """Any answer that is no success."""

    code = serializers.CharField(help_text="For programs: the same word as an item's error_code.")
    detail = serializers.CharField(help_text="For people.")
    bland_code = serializers.CharField(required=False, help_text="Bland's own word.")
    http_status = serializers.IntegerField(required=False, help_text="Bland's own status.")
    bulk_update = serializers.IntegerField(required=False, help_text="The update that it is in.")
    standing_order = serializers.IntegerField(required=False, help_text="The order in question.")
    state = serializers.ChoiceField(
        BulkUpdateItem.State.choices,
        required=False,
        help_text="How the conversation stands in that update; `waiting`: still to be done.",
    )
    fields = serializers.DictField(required=False)  # type: ignore[assignment]
