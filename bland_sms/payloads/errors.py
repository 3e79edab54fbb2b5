"""Bland's error envelopes: which code and which words an error answer carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..exceptions import BlandPayloadError
from ..words import bland_code, bland_page, bland_words
from .values import parse_json

ENVELOPE = ("data", "errors", "message", "status")
"""What stands around a payload. No conversation has fields of these names."""


def unwrap(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload of either documented shape: bare, or inside ``data``."""
    data = body.get("data")
    return data if isinstance(data, dict) else body


def read_error(body: bytes) -> tuple[str, str]:
    """Bland's code and words out of an error's body, ``""`` for what is not there.

    Six envelopes are in use, HTML pages of a proxy among them; none of them raises.
    """
    try:
        parsed = parse_json(body)
    except BlandPayloadError:
        return "", bland_page(body)
    return describe_error(parsed)


def describe_error(parsed: Any) -> tuple[str, str]:
    """The same for a body that is parsed already."""
    if not isinstance(parsed, dict):
        return "", ""
    errors = parsed.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else errors
    if isinstance(first, str):
        return "", bland_words(first)
    told = first if isinstance(first, dict) else parsed
    code, message = told.get("error"), told.get("message")
    code = code if isinstance(code, str) else ""
    message = message if isinstance(message, str) else ""
    if not bland_code(code):  # prose, such as "Rate Limit Exceeded"
        code, message = "", message or code
    return code, bland_words(message)
