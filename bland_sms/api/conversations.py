"""Conversations: read from the mirror, changed by asking Bland."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from .. import dispatching, standing, sync, updates
from ..client import check_client
from ..conf import get_settings
from ..database import after_commit
from ..exceptions import BlandError
from ..models import BulkUpdate, BulkUpdateItem, Conversation, Message
from ..models.conversation import SYNTHETIC_TEXT
from ..pacing import Allowance
from ..payloads import is_conversation_id
from ..reasons import Failure
from ..visible import is_narrowed
from .base import SafeViewSet
from .errors import outcome_of, refusal_of
from .filters import CONVERSATIONS
from .paging import ConversationPages, MessagePages
from .permissions import VERBS, check_verb, may
from .serializers import (
    TEXTS,
    ChangeSerializer,
    ConversationSerializer,
    EmptySerializer,
    MessageSerializer,
    MomentField,
)

State = BulkUpdateItem.State


class ConversationViewSet(SafeViewSet[Conversation]):
    """Conversations as Bland last told them. To change one means to ask Bland."""

    needs = {
        None: ("view_conversation",),
        "list": ("view_conversation",),
        "retrieve": ("view_conversation",),
        "partial_update": ("view_conversation", VERBS),
        "messages": ("view_conversation", "view_transcript"),
        "refresh": ("view_conversation", "refresh_conversation"),
    }
    parameters = {"list": CONVERSATIONS}
    queryset = Conversation.objects.all()
    lookup_value_regex = "[^/]+"
    pagination_class = ConversationPages
    serializer_class = ConversationSerializer

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        if self.action == "partial_update":
            return ChangeSerializer
        return super().get_serializer_class()

    def get_queryset(self) -> QuerySet[Conversation]:
        queryset, seen = super().get_queryset(), self.get_conversations()
        if seen is None:
            return queryset
        if is_narrowed(queryset):
            return queryset.filter(pk__in=seen.order_by().values("pk"))
        return seen

    def get_object(self) -> Conversation:
        conversation_id = self.kwargs["pk"]
        found = None
        if is_conversation_id(conversation_id):
            found = self._shown(self.get_queryset()).filter(pk=conversation_id).first()
        if found is None:
            raise Http404
        self.check_object_permissions(self.request, found)
        return found

    def _shown(self, queryset: QuerySet[Conversation]) -> QuerySet[Conversation]:
        """With the columns that are shown, and no more: texts can be long."""
        hidden = ["older_facts", "event_history", "customer_key", "user_digits_reversed"]
        if not may(self.request.user, "view_transcript"):
            hidden += TEXTS
        return queryset.defer(*hidden)

    # --- reading ------------------------------------------------------------------------------

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The conversations, the one that Bland updated last first."""
        rows = self.paginate_queryset(self._shown(self.filter_queryset(self.get_queryset())))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One conversation."""
        return Response(self.get_serializer(self.get_object()).data)

    @action(detail=True, serializer_class=MessageSerializer, pagination_class=MessagePages)
    def messages(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """A conversation's messages, the oldest first, as they were last copied."""
        conversation = self.get_object()
        messages: QuerySet[Any] = Message.objects.filter(conversation=conversation).exclude(
            text=SYNTHETIC_TEXT
        )
        rows = self.paginate_queryset(self.filter_queryset(messages))
        answer = self.get_paginated_response(self.get_serializer(rows, many=True).data)
        copied_at = MomentField().to_representation(conversation.transcript_observed_at)
        answer.data["copied_at"] = copied_at
        return answer

    # --- asking Bland -------------------------------------------------------------------------

    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Ask Bland to deactivate or reactivate a conversation, and answer with what it said."""
        conversation = self.get_object()
        wish = self.get_serializer(data=request.data)
        wish.is_valid(raise_exception=True)
        is_active = wish.validated_data["is_active"]
        check_verb(request.user, is_active)
        check_client()  # where there is no usable key nothing is recorded either
        bulk_update = updates.prepare(
            [conversation.pk],
            is_active,
            requested_by=request.user,
            reason=wish.validated_data["reason"],
            source=BulkUpdate.Source.API,
        )
        updates.start(bulk_update)
        dispatching.carry_out(bulk_update)
        bulk_update.refresh_from_db()
        item = bulk_update.items.get()
        if item.state not in (State.CHANGED, State.UNCHANGED):
            with_words = may(request.user, "view_transcript")
            raise outcome_of(bulk_update, item, with_words=with_words)
        return self._current(conversation.pk)

    @action(detail=True, methods=["post"], serializer_class=EmptySerializer)
    def refresh(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Copy a conversation and its messages from Bland, and answer with the copy."""
        conversation = self.get_object()
        seconds = get_settings().inline_seconds
        failures: list[BlandError | None] = []

        def copy() -> None:
            try:
                sync.refresh(conversation.pk, allowance=Allowance.of_seconds(seconds))
                standing.carry_out_waiting(seconds=seconds)
                failures.append(None)
            except BlandError as error:
                failures.append(error)

        after_commit(copy)
        if not failures:  # in a transaction of the host's
            raise refusal_of(Failure("waiting", {"cause": "copied_after_commit"}))
        if failures[0] is not None:
            raise failures[0]
        return self._current(conversation.pk)

    def _current(self, conversation_id: str) -> Response:
        """The row as it is by now."""
        found = self._shown(self.get_queryset()).filter(pk=conversation_id).first()
        if found is None:
            raise Http404
        context = self.get_serializer_context()
        return Response(ConversationSerializer(found, context=context).data)
