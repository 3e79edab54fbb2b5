"""The OpenAPI schema, where drf-spectacular is installed: what it cannot tell from the code."""

# mypy: allow-untyped-calls
from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, NamedTuple

from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import (
    ResolvedComponent,
    alpha_operation_sorter,
    build_mock_request,
    normalize_result_object,
    safe_ref,
    sanitize_result_object,
)
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.settings import spectacular_settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from .. import __version__
from ..conf import get_settings
from ..payloads import CONVERSATION_ID
from ..summary import STEPS
from .base import SafeView
from .bulk_updates import BulkUpdateViewSet
from .conversations import ConversationViewSet
from .parsing import StrictSerializer
from .permissions import VERBS
from .requested import KEY
from .serializers import (
    TEXTS,
    BulkUpdateSerializer,
    ConversationSerializer,
    EmptySerializer,
    ItemSerializer,
    MessageSerializer,
    RefusalSerializer,
    StandingOrderSerializer,
)
from .standing_orders import StandingOrderViewSet
from .summary import SummaryView

ANY = (400, 401, 403, 406, 429, 503)
BODY = (413, 415)
BLAND = (502, 503, 504)
INFO = {
    "title": "bland_sms",
    "version": __version__,
    "description": "A Bland AI account's SMS conversations: read them, and ask Bland to change.",
}
PREFIX = "Bland"
"""Of the names of our components: a host's schema has one namespace, and may have a Message too."""


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

MADE = OpenApiParameter(
    "Location",
    OpenApiTypes.URI,
    OpenApiParameter.HEADER,
    response=[201],
    description="The address of the order.",
)
ORDER_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": f"^{KEY.pattern}$"},
    OpenApiParameter.HEADER,
    description="The same key with the same body names the same order.",
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
ORDER_OPERATIONS = {
    "list": Operation(answers(_200=StandingOrderSerializer(many=True))),
    "create": Operation(answers(409, *BODY, _201=StandingOrderSerializer), (ORDER_KEY, MADE)),
    "retrieve": Operation(answers(404, _200=StandingOrderSerializer), (UPDATE,)),
    "lift": Operation(answers(404, 409, *BODY, _200=StandingOrderSerializer), (UPDATE,)),
}


def _asked(name: str, schema: dict[str, Any], description: str) -> OpenApiParameter:
    return OpenApiParameter(name, schema, OpenApiParameter.QUERY, description=description)


_DAY = {"type": "string", "format": "date"}
SUMMARY_OPERATION = Operation(
    answers(_200=OpenApiTypes.OBJECT),
    (
        _asked("step", {"type": "string", "enum": list(STEPS)}, "What one period is."),
        _asked(
            "from", _DAY, "The first day; at most 400 days before the last one, else it is moved."
        ),
        _asked("to", _DAY, "The last day; today if it is left out."),
        _asked("agent_number", {"type": "string"}, "Only this one of our numbers."),
    ),
)


class ApiSchema(AutoSchema):
    """Looks the actions up in the tables above. A host's own actions are left to be guessed."""

    def _operation(self) -> Operation | None:
        action = str(getattr(self.view, "action", ""))
        if isinstance(self.view, ConversationViewSet):
            return CONVERSATION_OPERATIONS.get(action)
        if isinstance(self.view, BulkUpdateViewSet):
            return UPDATE_OPERATIONS.get(action)
        if isinstance(self.view, StandingOrderViewSet):
            return ORDER_OPERATIONS.get(action)
        return SUMMARY_OPERATION if isinstance(self.view, SummaryView) else None

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if _host_camelizes():
            # Ours keep their names, since our views do not speak camel case: the host's hook
            # does not look into an allOf.
            for component in self.registry._components.values():
                is_object = component.schema and component.schema.get("type") == "object"
                if is_object and component.name.startswith(PREFIX):
                    component.schema = {"allOf": [component.schema]}
        return operation

    def get_override_parameters(self) -> list[Any]:
        operation = self._operation()
        return [] if operation is None else list(operation.parameters)

    def get_request_serializer(self) -> Any:
        serializer = super().get_request_serializer()
        return None if isinstance(serializer, EmptySerializer) else serializer

    def resolve_serializer(
        self, serializer: Any, direction: Any, bypass_extensions: bool = False
    ) -> ResolvedComponent:
        if isinstance(serializer, StrictSerializer):
            serializer.partial = False  # what is required stays so in a PATCH
        return super().resolve_serializer(serializer, direction, bypass_extensions)

    def get_response_serializers(self) -> Any:
        operation = self._operation()
        return super().get_response_serializers() if operation is None else operation.responses

    def get_paginated_name(self, serializer_name: str) -> str:
        if serializer_name.startswith(PREFIX):
            return f"{serializer_name}Page"
        return str(super().get_paginated_name(serializer_name))


def _host_camelizes() -> bool:
    hooks = spectacular_settings.POSTPROCESSING_HOOKS
    return any("camel" in getattr(hook, "__name__", "") for hook in hooks)


SafeView.schema = ApiSchema()


class OurSerializers(OpenApiSerializerExtension):
    """Names of our own: neither a serializer nor an enum of the host's is called anything else
    because of ours. A subclass in the host's code is named as its author says."""

    def get_name(self, auto_schema: AutoSchema, direction: Any) -> str | None:
        kind = type(self.target)
        return f"{PREFIX}{kind.__name__}" if kind.__module__.startswith("bland_sms.") else None

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(
            self.target, direction, bypass_extensions=True
        )
        owner = (self.get_name(auto_schema, direction) or "").removesuffix("Serializer")
        if owner:
            for name, told in schema.get("properties", {}).items():
                if "enum" in told:
                    schema["properties"][name] = self._as_component(
                        auto_schema, f"{owner}{name.title().replace('_', '')}Enum", told
                    )
        return schema

    def _as_component(
        self, auto_schema: AutoSchema, name: str, told: dict[str, Any]
    ) -> dict[str, Any]:
        values = {key: told[key] for key in ("type", "enum")}
        rest = {key: told[key] for key in told if key not in (*values, "x-spec-enum-id")}
        component = ResolvedComponent(name, ResolvedComponent.SCHEMA, schema=values, object=name)
        auto_schema.registry.register_on_missing(component)
        reference: dict[str, Any] = safe_ref({**rest, **component.ref})
        return reference


class Conversations(OurSerializers):
    target_class = "bland_sms.api.serializers.ConversationSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        """Texts are absent for those who may not read them."""
        schema = super().map_serializer(auto_schema, direction)
        required = [name for name in schema.get("required", []) if name not in TEXTS]
        return {**schema, "required": required}


class Messages(OurSerializers):
    target_class = "bland_sms.api.serializers.MessageSerializer"
    match_subclasses = True


class Updates(OurSerializers):
    target_class = "bland_sms.api.serializers.BulkUpdateSerializer"
    match_subclasses = True


class StandingOrders(OurSerializers):
    target_class = "bland_sms.api.serializers.StandingOrderSerializer"
    match_subclasses = True


class Items(OurSerializers):
    target_class = "bland_sms.api.serializers.ItemSerializer"
    match_subclasses = True


class Refusals(OurSerializers):
    target_class = "bland_sms.api.serializers.RefusalSerializer"
    match_subclasses = True


class Bodies(OurSerializers):
    target_class = "bland_sms.api.parsing.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        """Other fields are refused."""
        schema = super().map_serializer(auto_schema, direction)
        return {**schema, "additionalProperties": False}


class NamedIds(OpenApiSerializerFieldExtension):
    target_class = "bland_sms.api.parsing.ConversationIdsField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        limit = get_settings().bulk_limit
        return {"type": "array", "items": ID, "minItems": 1, "maxItems": limit}


class Endpoints(EndpointEnumerator):
    """Views of ours, whatever the host's hooks leave out of its own schema."""

    def get_api_endpoints(self, patterns: Any = None, prefix: str = "") -> list[Any]:
        found = self._get_api_endpoints(patterns, prefix)
        ours = [one for one in found if issubclass(getattr(one[3], "cls", object), SafeView)]
        return sorted(ours, key=alpha_operation_sorter)


class OurSchema(SchemaGenerator):
    """What lies beside the schema. It patches no setting of drf-spectacular, since these belong to
    the whole process and thus to the host's schema, and asks none of the host's hooks."""

    endpoint_inspector_cls = Endpoints

    def get_schema(self, request: Any = None, public: bool = True) -> Any:
        document = {
            "openapi": spectacular_settings.OAS_VERSION,
            "info": INFO,
            "paths": self.parse(request, public),
            "components": self.registry.build({}),
        }
        return sanitize_result_object(normalize_result_object(document))

    def parse(self, input_request: Any, public: bool) -> dict[str, Any]:
        self._initialise_endpoints()
        route = Endpoints().get_path_from_regex(input_request.resolver_match.route)
        mounted = route.removesuffix("schema/")
        # As it is called: with the path of the WSGI application, and what the pattern captured.
        prefix = input_request.path.removesuffix("schema/")
        paths: dict[str, Any] = {}
        for path, path_regex, method, view in self._get_paths_and_endpoints():
            if not path.startswith(mounted):
                continue
            called = prefix + path.removeprefix(mounted)
            view.request = build_mock_request(method, called, view, input_request)
            operation = view.schema.get_operation(
                called, path_regex, f"^{re.escape(prefix)}", method, self.registry
            )
            if operation:
                paths.setdefault(called, {})[method.lower()] = operation
        return paths


class SchemaView(SafeView):
    """The schema of this API, as JSON or YAML."""

    schema = None  # it is in no schema itself
    renderer_classes = [
        OpenApiJsonRenderer,
        OpenApiJsonRenderer2,
        OpenApiYamlRenderer,
        OpenApiYamlRenderer2,
    ]
    needs = {None: (("view_conversation", "view_bulkupdate", "view_standingorder", *VERBS),)}

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        suffix = request.accepted_renderer.format
        name = {"Content-Disposition": f'inline; filename="bland_sms.{suffix}"'}
        return Response(OurSchema().get_schema(request), headers=name)
