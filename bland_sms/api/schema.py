"""The OpenAPI schema, where drf-spectacular is installed: what it cannot tell from the code."""

# mypy: allow-untyped-calls
from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from drf_spectacular.views import SpectacularAPIView

from .. import __version__
from ..conf import get_settings
from ..payloads import CONVERSATION_ID
from .base import SafeView
from .bulk_updates import KEY, BulkUpdateViewSet
from .conversations import ConversationViewSet
from .permissions import VERBS
from .serializers import (
    TEXTS,
    BulkUpdateSerializer,
    ConversationSerializer,
    EmptySerializer,
    ItemSerializer,
    MessageSerializer,
    RefusalSerializer,
)

ANY = (400, 401, 403, 406, 429, 503)
BODY = (413, 415)
BLAND = (502, 503, 504)
CUSTOM_SETTINGS = {
    "TITLE": "bland_sms",
    "DESCRIPTION": "A Bland AI account's SMS conversations: read them, and ask Bland to change.",
    "VERSION": __version__,
    "OAS_VERSION": "3.0.3",
    "COMPONENT_SPLIT_PATCH": False,
    "ENUM_NAME_OVERRIDES": {
        "ConversationStatus": "bland_sms.models.conversation.Status",
        "BulkUpdateStatus": "bland_sms.models.BulkUpdate.Status",
        "ItemState": "bland_sms.models.BulkUpdateItem.State",
    },
}


def answers(*refusals: int, **good: Any) -> dict[int, Any]:
    """Serializers by status; ``_200`` and so on are the good ones."""
    found: dict[int, Any] = {int(status[1:]): one for status, one in good.items()}
    for status in sorted({*ANY, *refusals}):
        found[status] = OpenApiResponse(RefusalSerializer, HTTPStatus(status).phrase)
    return found


def in_path(schema: dict[str, Any]) -> OpenApiParameter:
    return OpenApiParameter("id", schema, OpenApiParameter.PATH)


ID = {"type": "string", "pattern": f"^{CONVERSATION_ID.pattern}$"}
CONVERSATION = in_path(ID)
UPDATE = in_path({"type": "integer", "minimum": 1, "maximum": 2**63 - 1})
LOCATION = OpenApiParameter(
    "Location",
    OpenApiTypes.URI,
    OpenApiParameter.HEADER,
    response=[202],
    description="The address of the update.",
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": f"^{KEY.pattern}$"},
    OpenApiParameter.HEADER,
    description="The same key with the same body names the same update.",
)


class Operation(NamedTuple):
    """What one action takes and answers. Its request's serializer is the view's own."""

    responses: dict[int, Any]
    parameters: tuple[OpenApiParameter, ...] = ()


_one, _update = ConversationSerializer, BulkUpdateSerializer
_decision = Operation(answers(404, 409, *BODY, _202=_update), (UPDATE,))
CONVERSATION_OPERATIONS = {
    "list": Operation(answers(_200=_one(many=True))),
    "retrieve": Operation(answers(404, _200=_one), (CONVERSATION,)),
    "partial_update": Operation(
        answers(404, 409, *BODY, *BLAND, _200=_one, _202=RefusalSerializer), (CONVERSATION,)
    ),
    "messages": Operation(answers(404, _200=MessageSerializer(many=True)), (CONVERSATION,)),
    "refresh": Operation(
        answers(404, 409, *BODY, *BLAND, _200=_one, _202=RefusalSerializer), (CONVERSATION,)
    ),
}
UPDATE_OPERATIONS = {
    "list": Operation(answers(_200=_update(many=True))),
    "create": Operation(answers(409, *BODY, _202=_update), (IDEMPOTENCY_KEY, LOCATION)),
    "retrieve": Operation(answers(404, _200=_update), (UPDATE,)),
    "items": Operation(answers(404, _200=ItemSerializer(many=True)), (UPDATE,)),
    "proceed": _decision,
    "retry": _decision,
    "cancel": Operation(answers(404, 409, *BODY, _200=_update), (UPDATE,)),
    "undo": Operation(_decision.responses, (UPDATE, LOCATION)),
}


class ApiSchema(AutoSchema):
    """Looks the actions up in the tables above. A host's own actions are left to be guessed."""

    def _operation(self) -> Operation | None:
        action = str(getattr(self.view, "action", ""))
        if isinstance(self.view, ConversationViewSet):
            return CONVERSATION_OPERATIONS.get(action)
        if isinstance(self.view, BulkUpdateViewSet):
            return UPDATE_OPERATIONS.get(action)
        return None

    def get_override_parameters(self) -> list[Any]:
        operation = self._operation()
        return [] if operation is None else list(operation.parameters)

    def get_request_serializer(self) -> Any:
        serializer = super().get_request_serializer()
        return None if isinstance(serializer, EmptySerializer) else serializer

    def get_response_serializers(self) -> Any:
        operation = self._operation()
        return super().get_response_serializers() if operation is None else operation.responses


SafeView.schema = ApiSchema()


class StrictBodies(OpenApiSerializerExtension):
    """What is required stays so in a PATCH, and other fields are refused."""

    target_class = "bland_sms.api.parsing.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        required = [name for name, field in self.target.fields.items() if field.required]
        return {**schema, "required": sorted(required), "additionalProperties": False}


class NamedIds(OpenApiSerializerFieldExtension):
    target_class = "bland_sms.api.parsing.ConversationIdsField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        limit = get_settings().bulk_limit
        return {"type": "array", "items": ID, "minItems": 1, "maxItems": limit}


class TextsMayBeAbsent(OpenApiSerializerExtension):
    target_class = "bland_sms.api.serializers.ConversationSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        required = [name for name in schema.get("required", []) if name not in TEXTS]
        return {**schema, "required": required}


class OurEndpoints(SchemaGenerator):
    """What lies beside the schema, and not the rest of the host's API."""

    def parse(self, input_request: Any, public: bool) -> Any:
        self._initialise_endpoints()
        prefix = input_request.path_info.removesuffix("schema/")
        self.endpoints = [
            endpoint
            for endpoint in self.endpoints or ()
            if endpoint[0].startswith(prefix) and endpoint[0] != input_request.path_info
        ]
        return super().parse(input_request, public)


class SchemaView(SafeView, SpectacularAPIView):
    """The schema of this API, as JSON or YAML."""

    renderer_classes = [OpenApiJsonRenderer, OpenApiYamlRenderer]
    needs = {None: (("view_conversation", "view_bulkupdate", *VERBS),)}
    generator_class = OurEndpoints
    serve_public = True
    urlconf = None
    custom_settings = CUSTOM_SETTINGS

    def _get_version_parameter(self, request: Any) -> None:
        """There is one version. What the address says of it would end up in a header."""
