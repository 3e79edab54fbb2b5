"""What a web process of the host does: hands an update over to the queue.

python -m tests.engines.hand_over UPDATE
"""

from __future__ import annotations

import sys

import django

if __name__ == "__main__":
    django.setup()
    from bland_sms.dispatching import hand_over
    from bland_sms.models import BulkUpdate

    sys.exit(not hand_over(BulkUpdate.objects.get(pk=sys.argv[1])))
