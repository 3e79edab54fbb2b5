"""What we say of a failure: kept and raised in English, told in the language of whoever reads it.

A row of the ledger or the log of syncs is written by one person's request, or by nobody's, and is
read by another's. So it holds the English sentence, and a door shows :func:`translated`. Sentences
without a hole are marked by ``gettext_noop`` where they are raised; those with holes stand here.
"""

from __future__ import annotations

import re

from django.utils.translation import gettext, gettext_noop

# The client's
NO_ID = gettext_noop("%(id)s is not a conversation id: letters, digits, - and _ only")
TOO_LONG = gettext_noop("Bland's answer is longer than %(number)s bytes")
NO_JSON_VALUE = gettext_noop("Bland's answer contains %(name)s, which is not JSON")

# The syncs'
NOT_LOOKED_AT = gettext_noop(
    "not every conversation that was not listed could be looked at: %(cause)s"
)

# The ledger's
BY = gettext_noop("by %(who)s")
UPDATE = gettext_noop("update %(number)s")
UPDATE_BY = gettext_noop("update %(number)s by %(who)s")
UNDO_OF = gettext_noop("Undo of update %(number)s")
ROW_REFUSED = gettext_noop("Bland answered, but the database refused the row (%(error)s)")
WRONG_ACCOUNT = gettext_noop(
    "Bland knows none of the first %(number)s conversations: this looks like another account's key."
)
ACCOUNT_REFUSED = gettext_noop("Bland refuses this account (403): %(words)s")
NO_ACCOUNT = gettext_noop("%(who)s has no account any more.")
NOT_ACTIVE = gettext_noop("The account of %(who)s is not active any more.")
NO_PERMISSION = gettext_noop("%(who)s lacks the permission %(permission)s.")

# The History's
RETRIED = gettext_noop("Retried %(number)s.")
UNDONE_BY = gettext_noop("Undone by update %(number)s.")
DEACTIVATED_IN = gettext_noop("Deactivated at Bland in bulk update %(number)s.")
REACTIVATED_IN = gettext_noop("Reactivated at Bland in bulk update %(number)s.")

_HOLE = re.compile(r"%\((\w+)\)s")


def _pattern(template: str) -> re.Pattern[str]:
    parts = _HOLE.split(template)  # text, name, text, name, ...
    escaped = [
        f"(?P<{part}>.+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    ]
    return re.compile("".join(escaped), re.DOTALL)


# Those with more text first: "update 3 by dana" is no update called "3 by dana".
_TEMPLATES = sorted(
    (value for name, value in globals().items() if name.isupper() and isinstance(value, str)),
    key=len,
    reverse=True,
)
_PATTERNS = {template: _pattern(template) for template in _TEMPLATES}
_API_ERROR = re.compile(r"(HTTP [0-9]{3} \S+ )(.+)", re.DOTALL)


def translated(text: object) -> str:
    """One of our English sentences in the active language; anything else as it is."""
    english = str(text)
    known = gettext(english)
    if known != english:
        return known
    for template, pattern in _PATTERNS.items():
        found = pattern.fullmatch(english)
        if found:
            holes = {name: translated(words) for name, words in found.groupdict().items()}
            return gettext(template) % holes
    found = _API_ERROR.fullmatch(english)  # our words behind Bland's status and code
    if found:
        return found[1] + translated(found[2])
    if english.endswith("."):  # some doors end a cause as a sentence of its own
        return f"{translated(english[:-1])}."
    return english
