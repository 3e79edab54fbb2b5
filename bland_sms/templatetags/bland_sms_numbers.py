"""Numbers on our pages, as people of the reader's language group their digits."""

from __future__ import annotations

from django import template

from ..quantities import number_words

register = template.Library()


@register.filter
def grouped(number: int) -> str:
    """Such as "3,200", whatever ``USE_THOUSAND_SEPARATOR`` says: nowhere else is it otherwise."""
    return number_words(number)
