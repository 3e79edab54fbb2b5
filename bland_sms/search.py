"""Finding customers: a number in any notation, its last digits, an id, or several of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

from django.db.models import Q

from .conf import get_settings
from .customers import (
    bare,
    customer_key,
    digits_of,
    folded,
    is_number,
    may_be_whole,
    typed_key,
)
from .models import Conversation
from .payloads import is_conversation_id

MAX_TERMS = 200
MOST_SPLIT = 500
"""Terms that are read before those that come twice are left out."""
FEWEST_DIGITS = 4
NATIONAL_DIGITS = 10
"""A number with at least this many digits is whole, if perhaps without its country code."""
SHORTEST_NUMBER = 7
"""Fewer digits between two spaces are a part of a number, or the last digits of one."""
LONGEST_NUMBER = 15
"""Digits of an E.164 number."""
MOST_CHECKED = 2000
"""Found rows that are compared with the terms, to say what is missing and what is hidden."""
MAX_CHARACTERS = 20_000

_SEPARATORS = re.compile(r"[,;\r\n\t|<>\"]+")  # also: Dana <dana@example.com>
_OPENED_NUMBER = re.compile(r"(\d)([(+])")
_PUNCTUATED = re.compile(r"[+()./\-\u2010-\u2015\u2212]")


@dataclass(frozen=True)
class Term:
    """One thing that was typed."""

    text: str
    is_id: bool = False
    """It may be a conversation's id. Digits alone may be an id and a number."""
    keys: frozenset[str] = frozenset()
    """Customer keys that it may stand for; a national number has one with its country."""
    ending: str = ""
    """Last digits; of a whole number only looked for where no key matches."""

    @property
    def kind(self) -> str:
        """``number``, ``ending``, ``id`` or ``address``."""
        if self.ending:
            return "number" if self.keys else "ending"
        return "id" if self.is_id else "address"

    def matches(self, conversation_id: str, key: str, digits_reversed: str) -> bool:
        """Whether a row is what this term means."""
        if self.is_id and conversation_id == self.text:
            return True
        if key and key in self.keys:
            return True
        return bool(self.ending) and digits_reversed.startswith(self.ending[::-1])


@dataclass(frozen=True)
class Search:
    """What a search text asks for."""

    terms: tuple[Term, ...]
    hint: str = ""
    """Why nothing can be found: ``too_short`` or ``too_many``."""

    def reading(self) -> dict[str, int]:
        """How several terms were understood: how many of each :attr:`Term.kind`."""
        if len(self.terms) < 2:
            return {}
        kinds = sorted(term.kind for term in self.terms)
        return {kind: len(list(group)) for kind, group in groupby(kinds)}


@dataclass(frozen=True)
class Found:
    """What a search found in the mirror."""

    condition: Q
    ids: frozenset[str] | None = field(repr=False)
    """The rows one by one, where they are few; else ``None``."""
    unmatched: tuple[str, ...]
    """Of several terms those that match nothing. One term alone shows that by itself."""

    @property
    def is_few(self) -> bool:
        """Whether the condition names the rows one by one."""
        return self.ids is not None


def find(search: Search) -> Found:
    """Look a search up by ranges and equalities on indexed columns, in two statements."""
    keys = {key for term in search.terms for key in term.keys}
    known: set[str] = set()
    if keys:
        matching = Conversation.objects.filter(customer_key__in=keys).order_by()
        known = set(matching.values_list("customer_key", flat=True).distinct())
    condition = Q(pk__in=[term.text for term in search.terms if term.is_id])
    if known:
        condition |= Q(customer_key__in=known)
    for term in search.terms:
        if term.ending and not term.keys & known:
            condition |= ends_with(term.ending)
    rows = list(
        Conversation.objects.filter(condition)
        .order_by()
        .values_list("pk", "customer_key", "user_digits_reversed")[: MOST_CHECKED + 1]
    )
    if len(rows) > MOST_CHECKED:
        return Found(condition, ids=None, unmatched=())
    unmatched = tuple(
        term.text for term in search.terms if not any(term.matches(*row) for row in rows)
    )
    ids = frozenset(row[0] for row in rows)
    return Found(
        Q(pk__in=sorted(ids)), ids=ids, unmatched=unmatched if len(search.terms) > 1 else ()
    )


def ends_with(digits: str) -> Q:
    """A range over the reversed digits, with nothing but digits for bounds: the character after
    ``9`` sorts before the digits in many collations."""
    first = digits[::-1]
    condition = Q(user_digits_reversed__gte=first)
    to_raise = first.rstrip("9")
    if to_raise:  # "1299" ends before "13"; what begins with nines is the end of all
        following = to_raise[:-1] + str(int(to_raise[-1]) + 1)
        condition &= Q(user_digits_reversed__lt=following)
    return condition


# --- reading what was typed -------------------------------------------------------------------


def parse_search(text: str) -> Search:
    """Read what staff typed or pasted. Never raises, and takes linear time."""
    text = text.strip()
    split = list(islice(split_terms(folded(text[:MAX_CHARACTERS])), MOST_SPLIT + 1))
    texts = list(dict.fromkeys(split))
    # What is beyond any of these limits would be left out, and nobody told.
    if len(texts) > MAX_TERMS or len(split) > MOST_SPLIT or len(text) > MAX_CHARACTERS:
        return Search((), "too_many")
    terms = tuple(read_term(term) for term in texts)
    is_short = any(is_number(term.text) for term in terms)
    finds_nothing = all(not term.ending and is_number(term.text) for term in terms)
    return Search(terms, "too_short" if is_short and finds_nothing else "")


def single_id(text: str) -> str | None:
    """The id, where the text is one and nothing else."""
    term = folded(text[:MAX_CHARACTERS]).strip()
    return term if is_conversation_id(term) and not is_number(term) else None


def read_term(term: str) -> Term:
    """What one folded text asks for."""
    is_id = is_conversation_id(term)
    identity = bare(term)
    if not is_number(identity):
        return Term(term, is_id, frozenset({customer_key(identity)} - {""}))
    digits = digits_of(identity)
    if len(digits) < FEWEST_DIGITS:
        return Term(term, is_id)
    is_international = identity.startswith("+")
    if len(digits) < NATIONAL_DIGITS and not is_international:
        return Term(term, is_id, ending=digits)
    country_code = get_settings().default_country_code
    keys = {typed_key(identity, country_code)}
    if not is_international:
        keys.add(customer_key(identity))  # it may begin with its country all the same
    ending = customer_key(identity).lstrip("0") or digits
    return Term(term, is_id, frozenset(keys), ending=ending)


def split_terms(text: str) -> Iterator[str]:
    """Split at commas and lines; at spaces only between what is plainly separate.

    A browser turns the line breaks of what is pasted into a one-line box into spaces, or drops
    them, and "+1 (555) 010 0001" is one number.
    """
    for chunk in _SEPARATORS.split(text):
        words = _OPENED_NUMBER.sub(r"\1 \2", chunk).split()
        for kind, group in groupby(words, _kind):
            if kind == "number":
                yield from _numbers(list(group))
            elif kind == "other":
                yield " ".join(group)
            else:
                yield from group


def _kind(word: str) -> str:
    if set(word) <= set("+().-/\u2010\u2011\u2012\u2013\u2014\u2015\u2212") or is_number(word):
        return "number"
    return "word" if is_conversation_id(word) or is_number(bare(word)) or "@" in word else "other"


def _numbers(words: Sequence[str]) -> Iterator[str]:
    """Numbers from words of digits; each word belongs to one of them."""
    if len(words) >= 3 and all(
        len(word) == len(digits_of(word)) == FEWEST_DIGITS for word in words
    ):
        yield from words  # last digits, one after the other
        return
    begin = 0
    while begin < len(words):
        end = _end_of_number(words, begin)
        yield " ".join(words[begin:end])
        begin = end


def _end_of_number(words: Sequence[str], begin: int) -> int:
    """Where the number that begins with a word ends: behind the longest run of words that is as
    long as a national number, or else an international one; a word alone where none is."""
    has_plus = words[begin].startswith("+")
    if not has_plus and len(digits_of(words[begin])) >= SHORTEST_NUMBER:
        return begin + 1
    country_code = get_settings().default_country_code
    national = international = 0
    digits, end = "", begin
    for word in words[begin : begin + LONGEST_NUMBER]:
        is_whole = bool(national or international)
        begins_anew = word[0] == "+" or (is_whole and word[0] in "0(")
        digits += digits_of(word)
        if (end > begin and begins_anew) or len(digits) > LONGEST_NUMBER:
            break
        end += 1
        if len(digits) < SHORTEST_NUMBER:
            continue
        bare_digits = digits.removeprefix("00")
        if not has_plus and bare_digits == digits and may_be_whole(digits, country_code):
            national = end
        elif may_be_whole(f"+{bare_digits}", country_code):
            international = end
    return national or international or (end if has_plus else begin + 1)
