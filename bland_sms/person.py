"""A person as texts name them: by a number in any notation, or by an address."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from .conf import get_settings
from .customers import bare, customer_key, folded, is_number, may_be_whole, typed_key
from .models import Conversation
from .words import BETWEEN_DIGITS

ERASED = "(erased)"
"""Stands where something was."""
FEWEST_DIGITS = 7
"""A number without its country code is recognized by at least this many last digits."""


class NotANumberError(ValueError):
    """Not one whole phone number, and no customer's address."""


@dataclass(frozen=True)
class Person:
    """Whose traces are looked for. Matched whole: another address or number is another person."""

    key: str
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, number: str) -> Person:
        """Raises NotANumberError: empty, not a whole number, or no possible address."""
        key = typed_key(number, get_settings().default_country_code)
        identity = bare(number)
        is_known = bool(key) and Conversation.objects.filter(customer_key=key).exists()
        if not is_known and not (is_number(identity) and _is_whole(identity)):
            raise NotANumberError(
                _("not a phone number: give all its digits, best with + and the country")
            )
        return cls.with_key(key)

    @classmethod
    def with_key(cls, key: str) -> Person:
        """The customer of conversations that are here, by their ``customer_key``."""
        return cls(key, _pattern(key))

    def conversations(self) -> QuerySet[Conversation]:
        return Conversation.objects.filter(customer_key=self.key)

    def is_in(self, text: str) -> bool:
        return self.pattern.search(_digits_in_place(text)) is not None

    def masked(self, value: Any) -> Any:
        """A text, or a JSON value with texts, without the person in it."""
        if isinstance(value, str):
            return _masked(value, self.pattern)
        if isinstance(value, list):
            return [self.masked(item) for item in value]
        if isinstance(value, dict):
            return {_masked(key, self.pattern): self.masked(item) for key, item in value.items()}
        return value


def _is_whole(identity: str) -> bool:
    """Whether a number has as many digits as whole ones have."""
    country_code = get_settings().default_country_code
    return may_be_whole(identity, country_code) or may_be_whole(
        f"+{customer_key(identity)}", country_code
    )


def _pattern(key: str) -> re.Pattern[str]:
    """Finds a person in a text: an address as a whole; a number in any notation, with or without
    its country."""
    if not key.isdigit():
        return re.compile(rf"(?<![\w.+-]){re.escape(key)}(?![\w-]|\.\w)", re.IGNORECASE)
    endings: Collection[str] = [
        key[begin:] for begin in range(max(1, len(key) - FEWEST_DIGITS + 1))
    ]
    ways = "|".join(f"(?:{BETWEEN_DIGITS})".join(ending) for ending in endings)
    return re.compile(rf"(?<!\d)[+(]{{0,2}}0{{0,2}}(?:{ways})(?!\d)")


def _digits_in_place(text: str) -> str:
    """The text with digits of any script as ASCII, each where it was."""
    if text.isascii():
        return text
    return "".join(folded(char) if char.isdecimal() else char for char in text)


def _masked(text: str, pattern: re.Pattern[str]) -> str:
    parts, end = [], 0
    for found in pattern.finditer(_digits_in_place(text)):
        parts += [text[end : found.start()], ERASED]
        end = found.end()
    return "".join([*parts, text[end:]])
