"""Inside a fresh project: a stand-in for Bland, its conversations copied, and a server."""

from __future__ import annotations

import json
import os
import sys

sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "host.settings"

import django

django.setup()

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command

from bland_sms import sync
from bland_sms.models import Conversation
from bland_sms.sandbox import BlandSandbox, seed_account


def main(port: str) -> None:
    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    users.filter(username="dana").delete()
    users.create_superuser("dana", "", "secret-enough")
    Conversation.objects.all().delete()
    with BlandSandbox() as sandbox:
        seed_account(sandbox.account, 30)
        settings.BLAND_SMS.update(sandbox.settings)
        sync.run()
        active = list(Conversation.objects.filter(is_active=True, message_count__gt=1)[:2])
        for conversation in active:
            sync.refresh(conversation.pk)
        told = [{"id": one.pk, "number": one.user_number} for one in active]
        print(json.dumps(told), flush=True)
        call_command("runserver", f"127.0.0.1:{port}", use_reloader=False, verbosity=0)


main(sys.argv[1])
