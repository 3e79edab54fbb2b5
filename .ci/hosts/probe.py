"""Inside a fresh project that followed the README: does it work? Needs nothing but the wheel."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "host.settings"

import django

django.setup()

from django.conf import settings
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.utils.translation import gettext, override

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox, seed_account

settings.ALLOWED_HOSTS = ["testserver"]
ADMIN = "/admin/bland_sms/"


def main() -> None:
    with BlandSandbox() as sandbox:
        seed_account(sandbox.account, 40)
        settings.BLAND_SMS.update(sandbox.settings)
        call_command("bland_sms_check")
        call_command("bland_sms_sync")
        assert Conversation.objects.count() == 40
        look_around()
        deactivate(sandbox)
    api_and_webhook()
    call_command("bland_sms_work", "--once")


def staff() -> Client:
    users = get_user_model().objects
    client = Client()
    client.force_login(
        users.filter(username="dana").first() or users.create_superuser("dana", "", "secret-enough")
    )
    return client


def look_around() -> None:
    one = Conversation.objects.latest("last_activity_at")
    change = f"conversation/{quote(one.pk)}/change/"
    for page in ("", "conversation/", change, "bulkupdate/", "syncrun/", "webhookdelivery/"):
        assert staff().get(ADMIN + page).status_code == 200, page
    with override("es"):
        assert gettext("Deactivate selected conversations").startswith("Desactivar")


def deactivate(sandbox: BlandSandbox) -> None:
    ids = list(Conversation.objects.filter(is_active=True).values_list("pk", flat=True)[:3])
    told = staff().post(
        f"{ADMIN}conversation/",
        {"action": "deactivate_selected", "_selected_action": ids},
        follow=True,
    )
    assert told.status_code == 200
    assert not any(sandbox.is_active(one) for one in ids)
    assert not Conversation.objects.filter(pk__in=ids, is_active=True).exists()
    page = f"{ADMIN}bulkupdate/{BulkUpdate.objects.get().pk}/change/"
    assert staff().get(page).status_code == 200


def api_and_webhook() -> None:
    stranger = Client()
    assert stranger.get("/bland-sms/api/v1/conversations/").status_code in (401, 403)
    assert stranger.post("/bland-sms/webhook/", b"{}", "application/json").status_code in (401, 403)
    told = staff().get("/bland-sms/api/v1/conversations/")
    assert told.status_code == 200, told.content
    assert told.json()["results"]


main()
