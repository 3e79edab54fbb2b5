"""What an operator or a web process does in another database, as a program.

python -m tests.operator begin FIRST LAST | status UPDATE
"""

from __future__ import annotations

import sys

import django


def main(verb: str, *arguments: str) -> None:
    django.setup()
    from bland_sms.models import BulkUpdate, Conversation
    from bland_sms.updates import prepare, start

    if verb == "begin":
        first, last = map(int, arguments)
        ids = [f"conv_{number:04d}" for number in range(first, last)]
        Conversation.objects.bulk_create(Conversation(pk=pk, is_active=True) for pk in ids)
        bulk_update = prepare(ids, is_active=False)
        start(bulk_update)
        print(bulk_update.pk)
    else:
        bulk_update = BulkUpdate.objects.get(pk=arguments[0])
        print(bulk_update.status, bulk_update.counts()["changed"])


if __name__ == "__main__":
    main(*sys.argv[1:])
