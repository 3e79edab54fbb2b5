"""What a request's body may contain: JSON of a bounded size, and only the expected fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ParseError, ValidationError
from rest_framework.parsers import JSONParser

from ..conf import get_settings
from ..payloads import is_conversation_id
from ..reasons import Failure
from .errors import did_you_mean, refusal_of

MOST_ERRORS = 10
"""Wrong ids and unknown fields that are told one by one."""
BYTES_PER_ID = 140
BYTES_BESIDE = 64 * 1024


class JsonParser(JSONParser):
    """JSON in UTF-8. What cannot be read is the caller's error, however hostile it is."""

    def parse(
        self, stream: Any, media_type: Any = None, parser_context: Any = None
    ) -> dict[str, Any]:
        limit = BYTES_BESIDE + BYTES_PER_ID * get_settings().bulk_limit
        content = stream.read(limit + 1)
        if len(content) > limit:
            raise refusal_of(Failure("too_large", {"cause": "body_too_long", "number": limit}))
        try:
            parsed = json.loads(content.decode(), parse_constant=_refuse_constant)
        except RecursionError:
            raise ParseError(_("The JSON is nested too deeply.")) from None
        except ValueError as error:
            raise ParseError(_("The body is not JSON: %s") % error) from None
        return parsed  # type: ignore[no-any-return]  # of any type: the serializer refuses others


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know: a misspelt one would quietly change nothing."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [name for name in data if name not in self.fields]
            if unknown:
                raise ValidationError(
                    {
                        str(name): [ErrorDetail(did_you_mean(str(name), self.fields), "unknown")]
                        for name in unknown[:MOST_ERRORS]
                    }
                )
        return super().to_internal_value(data)


class StrictBooleanField(serializers.BooleanField):
    """``true`` or ``false``. What decides about customers is not guessed from ``"no"`` or 0."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input="")
        return bool(data)


class StrictCharField(serializers.CharField):
    """Text, and not a number that could be read as one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class ConversationIdsField(serializers.ListField):
    """Ids of conversations, from one up to ``BULK_LIMIT``; one given twice counts once."""

    child = serializers.CharField()
    default_error_messages = {
        "empty": _("Name at least one conversation."),
        "too_many": _("At most {limit} conversations at once."),
        "invalid_id": _("Not a conversation id, at index {index}."),
    }

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list):
            self.fail("not_a_list", input_type=type(data).__name__)
        if not data:
            self.fail("empty")
        limit = get_settings().bulk_limit
        if len(data) > limit:
            self.fail("too_many", limit=limit)
        wrong = [index for index, one in enumerate(data) if not is_conversation_id(one)]
        if wrong:
            text = self.error_messages["invalid_id"]
            raise ValidationError(
                [
                    ErrorDetail(text.format(index=index), "invalid_id")
                    for index in wrong[:MOST_ERRORS]
                ]
            )
        return list(dict.fromkeys(data))
