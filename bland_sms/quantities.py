"""How many, as people of the reader's language group the digits of a number."""

from __future__ import annotations

from django.utils.formats import number_format


def number_words(number: int, *, is_capped: bool = False) -> str:
    """Such as "3,200", whatever ``USE_THOUSAND_SEPARATOR`` says; "10,000+" where more exist."""
    words = number_format(number, force_grouping=True)
    return f"{words}+" if is_capped else words
