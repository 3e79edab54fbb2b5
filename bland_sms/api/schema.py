"""The OpenAPI schema, where drf-spectacular is installed: what it cannot tell from the code."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiViewExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from drf_spectacular.views import SpectacularAPIView
from rest_framework.settings import api_settings

from .. import __version__
from ..payloads import CONVERSATION_ID
from .base import SafeView
from .bulk_updates import LONGEST_KEY
from .permissions import VERBS
from .serializers import (
    TEXTS,
    BulkUpdateSerializer,
    ConversationSerializer,
    ItemSerializer,
    MessageSerializer,
    RefusalSerializer,
)

_host_schema: Any = api_settings.DEFAULT_SCHEMA_CLASS
if not issubclass(_host_schema, AutoSchema):
    SafeView.schema = AutoSchema()

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
    found = dict.fromkeys(sorted({*ANY, *refusals}), RefusalSerializer)
    return {**{int(status[1:]): one for status, one in good.items()}, **found}


def in_path(schema: dict[str, Any]) -> OpenApiParameter:
    return OpenApiParameter("id", schema, OpenApiParameter.PATH)


CONVERSATION = in_path({"type": "string", "pattern": f"^{CONVERSATION_ID.pattern}$"})
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
    {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$"},
    OpenApiParameter.HEADER,
    description="The same key with the same body names the same update.",
)


class ConversationViews(OpenApiViewExtension):
    target_class = "bland_sms.api.conversations.ConversationViewSet"
    match_subclasses = True

    def view_replacement(self) -> Any:
        class Described(self.target_class):  # type: ignore[misc, name-defined]
            pass

        one = ConversationSerializer
        return extend_schema_view(
            list=extend_schema(responses=answers(_200=one(many=True))),
            retrieve=extend_schema(parameters=[CONVERSATION], responses=answers(404, _200=one)),
            partial_update=extend_schema(
                parameters=[CONVERSATION],
                responses=answers(404, 409, *BODY, *BLAND, _200=one, _202=RefusalSerializer),
            ),
            messages=extend_schema(
                parameters=[CONVERSATION],
                responses=answers(404, _200=MessageSerializer(many=True)),
                filters=True,
            ),
            refresh=extend_schema(
                parameters=[CONVERSATION],
                request=None,
                responses=answers(404, 409, *BODY, *BLAND, _200=one, _202=RefusalSerializer),
            ),
        )(Described)


class BulkUpdateViews(OpenApiViewExtension):
    target_class = "bland_sms.api.bulk_updates.BulkUpdateViewSet"
    match_subclasses = True

    def view_replacement(self) -> Any:
        class Described(self.target_class):  # type: ignore[misc, name-defined]
            pass

        one = BulkUpdateSerializer
        decide = extend_schema(
            parameters=[UPDATE], request=None, responses=answers(404, 409, *BODY, _202=one)
        )
        return extend_schema_view(
            list=extend_schema(responses=answers(_200=one(many=True))),
            retrieve=extend_schema(parameters=[UPDATE], responses=answers(404, _200=one)),
            items=extend_schema(
                parameters=[UPDATE],
                responses=answers(404, _200=ItemSerializer(many=True)),
                filters=True,
            ),
            create=extend_schema(
                parameters=[IDEMPOTENCY_KEY, LOCATION],
                responses=answers(422, *BODY, _202=one),
            ),
            proceed=decide,
            retry=decide,
            cancel=extend_schema(
                parameters=[UPDATE], request=None, responses=answers(404, 409, *BODY, _200=one)
            ),
            undo=extend_schema(
                parameters=[UPDATE, LOCATION],
                request=None,
                responses=answers(404, 409, *BODY, _202=one),
            ),
        )(Described)


class StrictBodies(OpenApiSerializerExtension):
    """What is required stays so in a PATCH, and other fields are refused."""

    target_class = "bland_sms.api.parsing.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        required = [name for name, field in self.target.fields.items() if field.required]
        return {**schema, "required": sorted(required), "additionalProperties": False}


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
