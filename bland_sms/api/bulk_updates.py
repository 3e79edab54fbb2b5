"""The API of bulk updates: start them, read their progress, cancel, retry and undo them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import IntegrityError
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework.decorators import action
from rest_framework.exceptions import ErrorDetail, PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .. import dispatching, updates
from ..client import check_client
from ..conf import get_settings
from ..database import after_commit
from ..models import BulkUpdate, BulkUpdateItem
from ..reasons import Failure
from ..visible import visible_items
from .errors import refusal_of
from .filters import ITEMS, UPDATES
from .paging import KeysetPagination
from .parsing import MOST_ERRORS
from .permissions import VERBS, check_verb
from .requested import RequestedViewSet, digest_of, idempotency_key
from .serializers import (
    BulkUpdateSerializer,
    EmptySerializer,
    ItemSerializer,
    NewUpdateSerializer,
    ReasonSerializer,
)

Status = BulkUpdate.Status
OPEN = Status.OPEN
AT_REST = Status.AT_REST
IDS_PER_STATEMENT = 500


class BulkUpdateViewSet(RequestedViewSet[BulkUpdate]):
    """The ledger. Users who may not see all of it see what they requested themselves."""

    needs = {
        None: (("view_bulkupdate", *VERBS),),
        "list": (("view_bulkupdate", *VERBS),),
        "create": ("view_conversation", VERBS),
        "retrieve": (),  # what a user may not see is not in their queryset
        "items": (),
        "proceed": (VERBS,),
        "retry": (VERBS,),
        "cancel": (VERBS,),
        "undo": (VERBS,),
    }
    parameters = {"list": UPDATES, "items": ITEMS}
    queryset = BulkUpdate.objects.exclude(status=Status.DRAFT)
    serializer_class = BulkUpdateSerializer
    new_serializer_class = NewUpdateSerializer
    seeing_all = ("view_bulkupdate",)
    told_as = "bulk_update"

    # --- reading ------------------------------------------------------------------------------

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The updates, the newest first."""
        rows = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One update and how it stands."""
        return Response(self.get_serializer(self.get_object()).data)

    @action(detail=True, serializer_class=ItemSerializer, pagination_class=KeysetPagination)
    def items(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """What became of each conversation of an update."""
        items: QuerySet[Any] = visible_items(
            self.get_object().items.all(), self.get_conversations()
        )
        rows = self.paginate_queryset(self.filter_queryset(items))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    # --- asking -------------------------------------------------------------------------------

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Ask Bland to deactivate or reactivate many conversations.

        What fits into `INLINE_SECONDS` is carried out at once where there is no worker; `driver`
        says who carries out the rest. The same `Idempotency-Key` with the same body names the same
        update.
        """
        wish = self.get_serializer(data=request.data)
        wish.is_valid(raise_exception=True)
        asked = wish.validated_data
        check_verb(request.user, asked["is_active"])
        key = idempotency_key(request)
        digest = digest_of({**asked, "conversation_ids": sorted(asked["conversation_ids"])})
        known = self.known(BulkUpdate.objects.all(), key, digest)
        if known is not None:
            return self._carried_on(known)
        self._refuse_hidden(asked["conversation_ids"])
        check_client()  # where there is no usable key nothing is recorded either
        try:
            bulk_update = updates.prepare(
                asked["conversation_ids"],
                asked["is_active"],
                requested_by=request.user,
                reason=asked["reason"],
                source=BulkUpdate.Source.API,
                idempotency_key=key,
                request_sha256=digest,
            )
        except IntegrityError:
            # The same request came twice at once, and the other one was first.
            known = self.known(BulkUpdate.objects.all(), key, digest)
            if known is None:
                raise
            return self._carried_on(known)
        updates.start(bulk_update)
        dispatching.carry_out(bulk_update, or_here=True)
        return self._begun(bulk_update)

    def _carried_on(self, bulk_update: BulkUpdate) -> Response:
        """A repeated request. The first one may have ended before it started its update."""
        updates.start(bulk_update)
        if bulk_update.status in OPEN and dispatching.driver_of(bulk_update) == "none":
            dispatching.carry_out(bulk_update, or_here=True)
        return self._begun(bulk_update)

    def _refuse_hidden(self, conversation_ids: Sequence[str]) -> None:
        """Raises ValidationError: some of them this user may not name."""
        visible = self.get_conversations()
        if visible is None:
            return
        found: set[str] = set()
        for begin in range(0, len(conversation_ids), IDS_PER_STATEMENT):
            some = conversation_ids[begin : begin + IDS_PER_STATEMENT]
            found.update(visible.filter(pk__in=some).values_list("pk", flat=True))
        hidden = [one for one in conversation_ids if one not in found]
        if hidden:
            told = [ErrorDetail(_("Not found: %s.") % one, "not_found") for one in hidden]
            raise ValidationError({"conversation_ids": told[:MOST_ERRORS]})

    def _accepted(self, bulk_update: BulkUpdate, **headers: str) -> Response:
        """The update as it stands by now, wherever the rest of it is done."""
        return Response(self._shown(bulk_update), status=202, headers=headers)

    def _begun(self, bulk_update: BulkUpdate) -> Response:
        """The same of one that was asked for just now: with its address."""
        return self._accepted(bulk_update, **self.address_of(bulk_update))

    def _shown(self, bulk_update: BulkUpdate) -> dict[str, Any]:
        bulk_update.refresh_from_db()
        context = self.get_serializer_context()
        shown: dict[str, Any] = BulkUpdateSerializer(bulk_update, context=context).data
        return shown

    # --- deciding -----------------------------------------------------------------------------

    @action(
        detail=True,
        methods=["post"],
        url_path="continue",
        url_name="continue",
        serializer_class=EmptySerializer,
    )
    def proceed(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Carry out another slice here; a stopped update is continued."""
        bulk_update = self._steerable()
        if updates.has_hidden(bulk_update, BulkUpdateItem.State.OPEN, self.get_conversations()):
            raise PermissionDenied
        if bulk_update.status == Status.STOPPED:
            check_client()
            updates.proceed(bulk_update, request.user)
            dispatching.carry_out(bulk_update, or_here=True)
        elif bulk_update.status in OPEN:
            after_commit(partial(_drive, bulk_update, get_settings().inline_seconds))
        else:
            raise refusal_of(Failure("nothing_to_continue"))
        return self._accepted(bulk_update)

    @action(detail=True, methods=["post"], serializer_class=EmptySerializer)
    def retry(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Ask again for the failed ones and the unknown ones."""
        bulk_update = self._steerable()
        if not updates.retry(bulk_update, request.user, visible=self.get_conversations()):
            raise refusal_of(Failure("nothing_to_retry"))
        dispatching.carry_out(bulk_update, or_here=True)
        return self._accepted(bulk_update)

    @action(detail=True, methods=["post"], serializer_class=EmptySerializer)
    def cancel(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Ask no more of it. What is in flight is awaited."""
        bulk_update = self._steerable()
        if not updates.cancel(bulk_update, request.user, visible=self.get_conversations()):
            raise refusal_of(Failure("nothing_to_cancel"))
        return Response(self._shown(bulk_update))

    @action(detail=True, methods=["post"], serializer_class=ReasonSerializer)
    def undo(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """A new update: the opposite, for what this one changed, except what was changed since."""
        bulk_update = self.get_object()
        check_verb(request.user, not bulk_update.is_active)
        # No body is needed, and then its type says nothing.
        is_json = request.content_type.partition(";")[0] == "application/json"
        wish = self.get_serializer(data=request.data if is_json else {})
        wish.is_valid(raise_exception=True)
        nothing = refusal_of(Failure("nothing_to_undo"))
        if bulk_update.status not in AT_REST:
            raise nothing
        check_client()
        try:
            opposite = updates.undo(
                bulk_update,
                request.user,
                source=BulkUpdate.Source.API,
                reason=wish.validated_data["reason"],
                visible=self.get_conversations(),
            )
        except updates.SelectionError:
            raise nothing from None
        updates.start(opposite)
        dispatching.carry_out(opposite, or_here=True)
        return self._begun(opposite)

    def _steerable(self) -> BulkUpdate:
        """An update that this user may continue, retry and cancel."""
        bulk_update = self.get_object()
        check_verb(self.request.user, bulk_update.is_active)
        return bulk_update


def _drive(bulk_update: BulkUpdate, seconds: float) -> None:
    updates.run(bulk_update, seconds=seconds)
