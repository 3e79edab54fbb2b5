"""Finding customers: a number in any notation, its last digits, an id, or a pasted list of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from django.db.models import Q

from .conf import get_settings
from .models import Conversation
from .models.fields import digits_of
from .payloads import is_conversation_id

MAX_TERMS = 200
FEWEST_DIGITS = 4
NATIONAL_DIGITS = 10
"""From so many digits on a number is whole, if perhaps without its country."""
MOST_CHECKED = 2000
"""Found rows that are compared with a pasted list, to say what is missing."""

LONGEST_NUMBER = 15
"""Digits of an E.164 number."""
MAX_CHARACTERS = 20_000

_SEPARATORS = re.compile(r"[,;\r\n\t|]+")
_OPENED_NUMBER = re.compile(r"(\d)([(+])")
_NEXT_NUMBER = re.compile(r"\s+(?=\+)")
_NUMBER_CHARACTERS = re.compile(r"[\d\s+().\-/\u2010-\u2015]+")


@dataclass(frozen=True)
class Term:
    """One thing that was typed."""

    text: str
    is_id: bool = False
    """It may be a conversation's id. Digits alone may be an id and a number."""
    exact: frozenset[str] = frozenset()
    """The digits of a whole number, with and without the default country code."""
    ending: str = ""
    """Last digits; of a whole number only looked for where nothing matches exactly."""

    def matches(self, conversation_id: str, digits: str) -> bool:
        """Whether a row is what this term means."""
        if self.is_id and conversation_id == self.text:
            return True
        return digits in self.exact or bool(self.ending and digits.endswith(self.ending))


@dataclass(frozen=True)
class Search:
    """What a search text asks for."""

    terms: tuple[Term, ...]
    hint: str = ""
    """Why nothing can be found: ``too_short`` or ``too_many``."""


@dataclass(frozen=True)
class Found:
    """What a search found in the mirror."""

    condition: Q
    is_few: bool
    """The condition names the rows one by one."""
    unmatched: tuple[str, ...]
    """Of a pasted list, what was not found. One term alone shows that by itself."""


def find(search: Search) -> Found:
    """Look a search up by ranges and equalities on indexed columns, in two statements."""
    exact = {digits for term in search.terms for digits in term.exact}
    known: set[str] = set()
    if exact:
        matching = Conversation.objects.filter(user_digits__in=exact).order_by()
        known = set(matching.values_list("user_digits", flat=True).distinct())
    condition = Q(pk__in=[term.text for term in search.terms if term.is_id])
    if known:
        condition |= Q(user_digits__in=known)
    for term in search.terms:
        if term.ending and not term.exact & known:
            condition |= _ends_with(term.ending)
    rows = list(
        Conversation.objects.filter(condition)
        .order_by()
        .values_list("pk", "user_digits")[: MOST_CHECKED + 1]
    )
    if len(rows) > MOST_CHECKED:
        return Found(condition, is_few=False, unmatched=())
    unmatched = tuple(
        term.text for term in search.terms if not any(term.matches(*row) for row in rows)
    )
    return Found(
        Q(pk__in=[pk for pk, _digits in rows]),
        is_few=True,
        unmatched=unmatched if len(search.terms) > 1 else (),
    )


def _ends_with(digits: str) -> Q:
    first = digits[::-1]
    # Digits sort alike in every collation, so a range finds whatever begins with them.
    following = first[:-1] + chr(ord(first[-1]) + 1)
    return Q(user_digits_reversed__gte=first, user_digits_reversed__lt=following)


def parse_search(text: str) -> Search:
    """Read what staff typed or pasted. Never raises."""
    texts = list(dict.fromkeys(_split(_plain(text))))
    if len(texts) > MAX_TERMS:
        return Search((), "too_many")
    terms = tuple(_read(term) for term in texts)
    is_number = any(_is_number(term.text) and digits_of(term.text) for term in terms)
    finds_nothing = all(not term.ending and _is_number(term.text) for term in terms)
    return Search(terms, "too_short" if is_number and finds_nothing else "")


def single_id(text: str) -> str | None:
    """The id, where the text is one and nothing else."""
    term = _plain(text).strip()
    return term if is_conversation_id(term) and not _is_number(term) else None


def _plain(text: str) -> str:
    """Without what other programs put between the digits: wide signs, marks that nobody sees."""
    normal = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS])
    return "".join(char for char in normal if unicodedata.category(char) != "Cf")


def _is_number(term: str) -> bool:
    return _NUMBER_CHARACTERS.fullmatch(term) is not None


def _read(term: str) -> Term:
    is_id = is_conversation_id(term)
    digits = digits_of(term) if _is_number(term) else ""
    if len(digits) < FEWEST_DIGITS:
        return Term(term, is_id)
    is_international = term.startswith("+")
    if len(digits) < NATIONAL_DIGITS and not is_international:
        return Term(term, is_id, ending=digits)
    bare = digits.lstrip("0") or digits  # 00 stands before a country, 0 before an area
    exact = {digits, bare}
    if not is_international:
        exact.add(get_settings().default_country_code + bare)
    return Term(term, is_id, frozenset(exact), ending=bare)


def _split(text: str) -> Iterable[str]:
    """Split at commas and lines; at spaces only where a number is whole.

    A browser turns the line breaks of what is pasted into a one-line box into spaces, or drops
    them, and "+1 (555) 010 0001" is one number.
    """
    for chunk in _SEPARATORS.split(text):
        for part in _NEXT_NUMBER.split(_OPENED_NUMBER.sub(r"\1 \2", chunk)):
            if _is_number(part) and len(digits_of(part)) <= LONGEST_NUMBER:
                yield from filter(None, [" ".join(part.split())])
            else:
                yield from _gathered(part.split())


def _gathered(words: Iterable[str]) -> Iterable[str]:
    """Ids each by itself, digits until a number is whole, and what is neither as it stands."""
    for kind, group in groupby(words, _kind):
        if kind == "id":
            yield from group
        elif kind == "other":
            yield " ".join(group)
        else:
            number: list[str] = []
            for word in group:
                number.append(word)
                if len(digits_of("".join(number))) >= NATIONAL_DIGITS:
                    yield " ".join(number)
                    number = []
            if number:
                yield " ".join(number)


def _kind(word: str) -> str:
    if _is_number(word):
        return "number"
    return "id" if is_conversation_id(word) else "other"
