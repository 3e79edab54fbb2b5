"""Bulk updates: asked for here, carried out by whoever there is, and read while they run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import IntegrityError
from django.db.models import QuerySet
from django.http import Http404
from django.urls import NoReverseMatch
from django.utils.translation import gettext as _
from rest_framework.decorators import action
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from .. import updates
from ..client import get_client
from ..conf import get_settings
from ..models import BulkUpdate, Conversation
from ..transactions import after_commit
from .base import SafeViewSet
from .errors import Refusal
from .filters import ITEMS, UPDATES
from .paging import KeysetPagination, NewestPages
from .parsing import MOST_ERRORS
from .permissions import VERBS, check_verb, may
from .serializers import (
    BulkUpdateSerializer,
    EmptySerializer,
    ItemSerializer,
    NewUpdateSerializer,
)

Status = BulkUpdate.Status
KEY = re.compile("[!-~]{1,255}")
OPEN = (Status.QUEUED, Status.RUNNING)
AT_REST = (Status.FINISHED, Status.CANCELLED)
IDS_PER_STATEMENT = 500


class BulkUpdateViewSet(SafeViewSet[BulkUpdate]):
    """The ledger. Who may not see all of it sees what they asked for themselves."""

    needs = {
        None: (("view_bulkupdate", *VERBS),),
        "list": (("view_bulkupdate", *VERBS),),
        "create": ("view_conversation", VERBS),
        "retrieve": (),  # what somebody may not see is not in their queryset
        "items": (),
        "proceed": (VERBS,),
        "retry": (VERBS,),
        "cancel": (VERBS,),
        "undo": (VERBS,),
    }
    parameters = {"list": UPDATES, "items": ITEMS}
    queryset = BulkUpdate.objects.exclude(status=Status.DRAFT)
    lookup_value_regex = "[^/]+"
    pagination_class = NewestPages
    serializer_class = BulkUpdateSerializer

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        if self.request is not None and self.request.method == "POST" and not self.detail:
            return NewUpdateSerializer
        return super().get_serializer_class()

    def get_queryset(self) -> QuerySet[BulkUpdate]:
        queryset = super().get_queryset()
        user: Any = self.request.user
        if may(user, "view_bulkupdate"):
            return queryset
        return queryset.filter(requested_by=user.pk)

    def get_conversations(self) -> QuerySet[Conversation] | None:
        """For hosts that narrow: the conversations that may be named in a new update.

        ``None``: any id, also one that only Bland knows; it is looked up when its turn comes.
        """
        return None

    def get_object(self) -> BulkUpdate:
        pk = self.kwargs["pk"]
        found = None
        if pk.isascii() and pk.isdigit() and len(pk) < 19:
            found = self.get_queryset().filter(pk=int(pk)).first()
        if found is None:
            raise Http404
        self.check_object_permissions(self.request, found)
        return found

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
        items: QuerySet[Any] = self.get_object().items.all()
        rows = self.paginate_queryset(self.filter_queryset(items))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    # --- asking -------------------------------------------------------------------------------

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Ask Bland to deactivate or reactivate many conversations.

        What fits into `INLINE_SECONDS` is carried out at once where nobody else would; `driver`
        says who does the rest. The same `Idempotency-Key` with the same body names the same
        update.
        """
        wish = self.get_serializer(data=request.data)
        wish.is_valid(raise_exception=True)
        asked = wish.validated_data
        check_verb(request.user, asked["is_active"])
        key = _idempotency_key(request)
        digest = _digest(asked)
        known = None if key is None else self._known(key, digest)
        if known is not None:
            return self._carried_on(known)
        self._refuse_hidden(asked["conversation_ids"])
        get_client()  # where there is no usable key nothing is recorded either
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
            known = None if key is None else self._known(key, digest)
            if known is None:
                raise
            return self._carried_on(known)
        updates.start(bulk_update)
        updates.carry_out(bulk_update, or_here=True)
        return self._begun(bulk_update)

    def _known(self, key: str, digest: str) -> BulkUpdate | None:
        """This user's update under that key. Raises Refusal: it was asked for something else."""
        known = BulkUpdate.objects.filter(
            requested_by=self.request.user.pk, idempotency_key=key
        ).first()
        if known is not None and known.request_sha256 != digest:
            words = _("This Idempotency-Key was used for another request.")
            raise Refusal(409, "idempotency_key_reused", words, more={"bulk_update": known.pk})
        return known

    def _carried_on(self, bulk_update: BulkUpdate) -> Response:
        """An update that was asked for before. Whoever asked may have died before it began."""
        updates.start(bulk_update)
        if bulk_update.status in OPEN and updates.driver_of(bulk_update) == "nobody":
            updates.carry_out(bulk_update, or_here=True)
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
        try:
            url = self.reverse_action("detail", args=[bulk_update.pk])
        except NoReverseMatch:  # a host has mounted no more than this view
            return self._accepted(bulk_update)
        return self._accepted(bulk_update, Location=url)

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
        if bulk_update.status == Status.STOPPED:
            get_client()
            updates.proceed(bulk_update, request.user)
            updates.carry_out(bulk_update, or_here=True)
        elif bulk_update.status in OPEN:
            after_commit(partial(_drive, bulk_update, get_settings().inline_seconds))
        else:
            raise Refusal(409, "nothing_to_continue", _("Nothing of it is left to be done."))
        return self._accepted(bulk_update)

    @action(detail=True, methods=["post"], serializer_class=EmptySerializer)
    def retry(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Ask again for the failed ones and the unknown ones."""
        bulk_update = self._steerable()
        if not updates.retry(bulk_update, request.user):
            raise Refusal(409, "nothing_to_retry", _("Nothing of it failed, or it still runs."))
        updates.carry_out(bulk_update, or_here=True)
        return self._accepted(bulk_update)

    @action(detail=True, methods=["post"], serializer_class=EmptySerializer)
    def cancel(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Ask no more of it. What is in flight is awaited."""
        bulk_update = self._steerable()
        if not updates.cancel(bulk_update, request.user):
            raise Refusal(409, "nothing_to_cancel", _("Nothing of it is left to be done."))
        return Response(self._shown(bulk_update))

    @action(detail=True, methods=["post"], serializer_class=EmptySerializer)
    def undo(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """A new update: the opposite, for what this one changed and nobody changed since."""
        bulk_update = self.get_object()
        check_verb(request.user, not bulk_update.is_active)
        words = _("Nothing of it can be undone, or it still runs.")
        nothing = Refusal(409, "nothing_to_undo", words)
        if bulk_update.status not in AT_REST:
            raise nothing
        get_client()
        try:
            opposite = updates.undo(bulk_update, request.user, source=BulkUpdate.Source.API)
        except updates.SelectionError:
            raise nothing from None
        updates.start(opposite)
        updates.carry_out(opposite, or_here=True)
        return self._begun(opposite)

    def _steerable(self) -> BulkUpdate:
        """An update that this user may continue, retry and cancel."""
        bulk_update = self.get_object()
        check_verb(self.request.user, bulk_update.is_active)
        return bulk_update


def _drive(bulk_update: BulkUpdate, seconds: float) -> None:
    updates.run(bulk_update, seconds=seconds)


def _idempotency_key(request: Request) -> str | None:
    """Raises Refusal: not a key."""
    key: str | None = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not KEY.fullmatch(key):
        words = _("An Idempotency-Key has 1 to 255 printable ASCII characters and no spaces.")
        raise Refusal(400, "invalid_idempotency_key", words)
    return key


def _digest(asked: dict[str, Any]) -> str:
    """Of what was asked, in whatever order."""
    same = {**asked, "conversation_ids": sorted(asked["conversation_ids"])}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
