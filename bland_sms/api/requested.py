"""What bulk updates and standing orders share: rows that a user asks for, once for each key."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, TypeVar

from django.db.models import QuerySet
from django.http import Http404
from django.urls import NoReverseMatch
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer

from ..models import BulkUpdate, StandingOrder
from ..reasons import Failure
from .base import SafeViewSet
from .errors import refusal_of
from .paging import NewestPages
from .permissions import may

AnyRequested = TypeVar("AnyRequested", bound="BulkUpdate | StandingOrder")
KEY = re.compile("[!-~]{1,255}")


class RequestedViewSet(SafeViewSet[AnyRequested]):
    """Rows with a number, made by POST. Users who may not see all see what they requested."""

    lookup_value_regex = "[^/]+"
    pagination_class = NewestPages
    new_serializer_class: type[BaseSerializer[Any]]
    """Of the body that makes one."""
    seeing_all: tuple[str, ...]
    """Who has one of these permissions sees all rows."""
    told_as: str
    """What a row is called in the details of a refusal."""

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        if self.request is not None and self.request.method == "POST" and not self.detail:
            return self.new_serializer_class
        return super().get_serializer_class()

    def get_queryset(self) -> QuerySet[AnyRequested]:
        queryset = super().get_queryset()
        user: Any = self.request.user
        if may(user, *self.seeing_all):
            return queryset
        return queryset.filter(requested_by=user.pk)

    def get_object(self) -> AnyRequested:
        pk = self.kwargs["pk"]
        found = None
        if pk.isascii() and pk.isdigit() and len(pk) < 19:
            found = self.get_queryset().filter(pk=int(pk)).first()
        if found is None:
            raise Http404
        self.check_object_permissions(self.request, found)
        return found

    def known(
        self, rows: QuerySet[AnyRequested], key: str | None, digest: str
    ) -> AnyRequested | None:
        """This user's row under that key. Raises Refusal: it was asked for something else."""
        if key is None:
            return None
        found = rows.filter(requested_by=self.request.user.pk, idempotency_key=key).first()
        if found is not None and found.request_sha256 != digest:
            raise refusal_of(Failure("idempotency_key_reused"), more={self.told_as: found.pk})
        return found

    def address_of(self, row: AnyRequested) -> dict[str, str]:
        """The header with its address."""
        try:
            return {"Location": self.reverse_action("detail", args=[row.pk])}
        except NoReverseMatch:  # a host has mounted no more than this view
            return {}


def idempotency_key(request: Request) -> str | None:
    """Raises Refusal: not a key."""
    key: str | None = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not KEY.fullmatch(key):
        raise refusal_of(Failure("invalid_idempotency_key"))
    return key


def digest_of(asked: dict[str, Any]) -> str:
    """Of what was asked, in whatever order its names came."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
