"""What every engine's task does here: the work, with a note of how it began and ended."""

from __future__ import annotations

import os

LIMIT_SECONDS = 3
"""The engine's time limit. A host's is longer than ``WORK_SECONDS``; here it is meant to hit."""
QUEUE = os.environ.get("BLAND_SMS_TEST_QUEUE", "bland_sms_test")


def carry_out(kind: str, pk: int) -> None:
    note("begun")
    from bland_sms.tasks import work

    try:
        work(kind, pk)
    except BaseException as error:
        note(type(error).__name__)
        raise
    note("ended")


def note(word: str) -> None:
    with open(os.environ["BLAND_SMS_TEST_NOTES"], "a") as notes:
        notes.write(f"{word}\n")
