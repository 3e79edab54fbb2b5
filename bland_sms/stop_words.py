"""Whether a customer's message asks to stop: nothing but one of the words that say so."""

from __future__ import annotations

import re

from .conf import get_settings
from .customers import folded

LONGEST = 64
"""A longer message says more than such a word."""
_BESIDE = re.compile(r"[\W_]+")


def stop_words() -> frozenset[str]:
    """The words of ``STOP_WORDS``, ready to be compared."""
    return frozenset(filter(None, map(_bare, get_settings().stop_words)))


def asks_to_stop(text: str, words: frozenset[str]) -> bool:
    """Whether a message is nothing but one of the words.

    Case, punctuation and white space do not matter, so "Opt-out!" and "OPT OUT" are one.

    Args:
        words: From :func:`stop_words`; read once for all messages of an answer.
    """
    return 0 < len(text) <= LONGEST and _bare(text) in words


def word_in(text: str) -> str:
    """The word of ``STOP_WORDS`` that a message is, as the setting writes it; else ``""``."""
    bare = _bare(text[: LONGEST + 1])
    return next((word for word in get_settings().stop_words if bare and _bare(word) == bare), "")


def _bare(text: str) -> str:
    return _BESIDE.sub("", folded(text).casefold())
