"""Who a customer is: one key for a number or an address in any notation."""

from __future__ import annotations

import re
import unicodedata
from typing import Any
from urllib.parse import unquote

MAX_KEY = 255
MAX_IDENTITY = 1024
"""Characters that are looked at: what is longer names nobody, and each prefix is a pass over it."""
SHORTEST_INTERNATIONAL = 7
"""Digits behind ``00`` from which on it is the international prefix, and not part of a number."""

_PREFIX = re.compile(
    r"((?P<uri>tel|callto|sms|smsto|mms|mailto)|rcs|whatsapp|imessage):(//)?", re.IGNORECASE
)
_PARAMETERS = re.compile(r"[;?]")
"""What begins them in a URI: ``tel:+15550001111;ext=2``, ``sms:+15550001111?body=hi``."""
_NUMBER = re.compile(r"[\d\s+().\-/\u00b7\u2010-\u2015\u2212]+")
_INTERNATIONAL_PREFIX = re.compile(r"00(?=[1-9])")


def folded(text: str) -> str:
    """The text without what other programs put between its characters: wide signs, digits of
    other scripts, invisible marks."""
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text)
    return "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char
        for char in normal
        if unicodedata.category(char) != "Cf"
    )


def bare(identity: str) -> str:
    """An identity, folded, without the prefix of a URI (``tel:``) or a channel (``whatsapp:``).

    Only in a URI does ``%40`` stand for another character (RFC 3986).
    """
    text = folded(identity.strip()[:MAX_IDENTITY]).strip()
    while found := _PREFIX.match(text):
        text = text[found.end() :].strip()
        if found["uri"]:
            address = unquote(_PARAMETERS.split(text, maxsplit=1)[0]).strip()
            is_whole = is_number(address) or "@" in address
            text = address if is_whole else unquote(text).strip()
    return text


def is_number(text: str) -> bool:
    """Whether a folded text is written as a phone number is."""
    return _NUMBER.fullmatch(text) is not None and any(map(str.isdecimal, text))


def is_address(text: str) -> bool:
    """Whether a folded text is written as an address is: something at some place."""
    # No one pattern: it would take the square of a long text's length.
    name, _at, place = text.partition("@")
    is_one_word = "@" not in place and not re.search(r"\s", text)
    return is_one_word and all(re.search(r"\w", part) for part in (name, place))


def digits_of(text: str) -> str:
    """The decimal digits of a text in any script, as ASCII."""
    return "".join(filter(str.isascii, filter(str.isdecimal, folded(text))))


def customer_key(identity: str) -> str:
    """The one key of a customer, whatever the notation; ``""`` where none is known.

    The E.164 digits of a phone number, the lower case of an e-mail address or of any other
    identity. It depends on no setting, since it is stored: a national number stays as it is.

    Args:
        identity: As Bland sends it, such as ``+15550001111``, ``whatsapp:+1 (555) 000-1111`` or
            ``Dana@Example.com``.
    """
    text = bare(identity)
    if not is_number(text):
        return text.lower()[:MAX_KEY]
    if text.startswith("+"):
        text = text.replace("(0)", "")  # "+44 (0)20 ...": the zero is only dialled at home
    digits = digits_of(text)
    found = _INTERNATIONAL_PREFIX.match(digits)
    if found and len(digits) - found.end() >= SHORTEST_INTERNATIONAL:
        digits = digits[found.end() :]
    return digits[:MAX_KEY]


def typed_key(text: str, country_code: str) -> str:
    """The key of a whole identity that a person typed; a national number gets its country.

    Args:
        country_code: Of national numbers, as the setting ``DEFAULT_COUNTRY_CODE`` says.
    """
    identity = bare(text)
    key = customer_key(identity)
    if identity.startswith("+") or key != digits_of(identity):
        return key
    number = _parsed(key, country_code)
    return key if number is None else number


def may_be_whole(number: str, country_code: str) -> bool:
    """Whether a number has as many digits as whole ones have: national, or behind a ``+``."""
    import phonenumbers  # takes a while to import: only searches need it

    try:
        parsed = phonenumbers.parse(number, _region(country_code))
    except phonenumbers.NumberParseException:
        return False
    reason = phonenumbers.is_possible_number_with_reason(parsed)
    return bool(reason == phonenumbers.ValidationResult.IS_POSSIBLE)


def _parsed(digits: str, country_code: str) -> str | None:
    """E.164 digits of a national number, or of one that begins with its country's code.

    Where numbers differ in length digits may be both, and who leaves out the zero in front
    has written the country's code.
    """
    import phonenumbers

    try:
        number = phonenumbers.parse(digits, _region(country_code))
    except phonenumbers.NumberParseException:
        return None
    if digits.startswith(country_code):
        number = _whole(digits) or number
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).lstrip("+")


def _whole(digits: str) -> Any:
    """The number that begins with its country's code, or ``None`` where there is none such."""
    import phonenumbers

    try:
        number = phonenumbers.parse(f"+{digits}", None)
    except phonenumbers.NumberParseException:
        return None
    return number if phonenumbers.is_valid_number(number) else None


def _region(country_code: str) -> str:
    import phonenumbers

    return phonenumbers.region_code_for_country_code(int(country_code))
