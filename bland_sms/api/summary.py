"""The numbers of a desk over the API: the same as on the summary page."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from .. import summary
from .base import SafeView
from .parsing import StrictSerializer
from .permissions import Needs


class SummaryQuerySerializer(StrictSerializer):
    """What a summary may be narrowed by."""

    step = serializers.ChoiceField(summary.STEPS, default="day")
    to = serializers.DateField(required=False)
    agent_number = serializers.CharField(max_length=64, default="", allow_blank=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": serializers.DateField(required=False)}


class SummaryView(SafeView):
    """What happened by day, week or month, and by our number; at most 400 days, and 31 where the
    admin shows this user some conversations only.

    A first day that is too early is moved, and the answer says so: no schema can tell which are.
    """

    needs: Needs = {None: ("view_conversation",)}
    http_method_names = ["get", "head", "options"]

    def get(self, request: Request) -> Response:
        query = SummaryQuerySerializer(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        step = asked["step"]
        seen = self.get_conversations()
        longest = summary.LONGEST_DAYS if seen is None else summary.LONGEST_NARROWED_DAYS
        first, last = summary.nearest_days(step, asked.get("from"), asked.get("to"), longest)
        found = summary.read(
            step, first, last, agent_number=asked["agent_number"], conversations=seen
        )
        return Response(summary.as_data(found))
