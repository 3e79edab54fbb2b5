"""The API of standing orders: make, read and lift them."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework.decorators import action
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from .. import standing
from ..models import StandingOrder
from ..reasons import Failure
from .errors import refusal_of
from .filters import ORDERS
from .requested import RequestedViewSet, digest_of, idempotency_key
from .serializers import EmptySerializer, NewOrderSerializer, StandingOrderSerializer

READERS = ("view_standingorder", "add_standingorder", "lift_standingorder")


class StandingOrderViewSet(RequestedViewSet[StandingOrder]):
    """Customers whose conversations are kept inactive. Without ``view_standingorder`` and
    ``lift_standingorder`` an account sees what it ordered itself."""

    needs = {
        None: (READERS,),
        "list": (READERS,),
        "create": ("add_standingorder",),
        "retrieve": (READERS,),
        "lift": ("lift_standingorder",),
    }
    parameters = {"list": ORDERS}
    queryset = StandingOrder.objects.all()
    serializer_class = StandingOrderSerializer
    new_serializer_class = NewOrderSerializer
    seeing_all = ("view_standingorder", "lift_standingorder")
    told_as = "standing_order"

    def get_queryset(self) -> QuerySet[StandingOrder]:
        return standing.visible_orders(super().get_queryset(), self.get_conversations())

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The orders, the newest first."""
        rows = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.get_serializer(rows, many=True).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One order and how it stands."""
        return Response(self._shown(self.get_object()))

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Keep a customer's conversations inactive from now on.

        What is active already stays so until it changes. The same `Idempotency-Key` with the same
        body names the same order.
        """
        wish = self.get_serializer(data=request.data)
        wish.is_valid(raise_exception=True)
        asked = wish.validated_data
        key = idempotency_key(request)
        digest = digest_of(asked)
        order = self.known(StandingOrder.objects.all(), key, digest)
        if order is None:
            try:
                self._refuse_hidden(asked["customer"])
                order = standing.make(
                    **asked,
                    requested_by=request.user,
                    source=StandingOrder.Source.API,
                    idempotency_key=key,
                    request_sha256=digest,
                )
            except standing.OrderError as error:
                # The same request may have come twice at once, and the other one was first.
                order = self.known(StandingOrder.objects.all(), key, digest)
                if order is None:
                    raise refusal_of(error.failure, more=error.more) from None
            except IntegrityError:
                order = self.known(StandingOrder.objects.all(), key, digest)
                if order is None:
                    raise
        return self._made(order)

    def _refuse_hidden(self, customer: str) -> None:
        """Raises ValidationError: none of their conversations may be seen by this user."""
        if not standing.is_visible(customer, self.get_conversations()):
            told = ErrorDetail(_("Not found: %s.") % customer, "not_found")
            raise ValidationError({"customer": [told]})

    def _made(self, order: StandingOrder) -> Response:
        return Response(self._shown(order), status=201, headers=self.address_of(order))

    @action(detail=True, methods=["post"], serializer_class=EmptySerializer)
    def lift(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """End an order: it never acts again, and what it has queued is cancelled."""
        order = self.get_object()
        if not standing.lift(order, request.user):
            raise refusal_of(Failure("order_over"))
        return Response(self._shown(order))

    def _shown(self, order: StandingOrder) -> dict[str, Any]:
        context = self.get_serializer_context()
        shown: dict[str, Any] = StandingOrderSerializer(order, context=context).data
        return shown
