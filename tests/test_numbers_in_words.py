"""Quantities have their digits in groups wherever people read them; the names of rows have not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.test import Client, RequestFactory
from django.utils import timezone

from bland_sms.admin.confirmation import duration_words
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    ConversationEvent,
    Erasure,
    PastedLine,
    StandingOrder,
    SyncRun,
    WebhookDelivery,
)
from bland_sms.reasons import REASONS, Failure
from tests.test_staff_words import APP, marked, modules

BARE = re.compile(r"%d|%\(\w+\)d")
NAMED = re.compile(r"(update|order|line) (%d|%\(\w+\)d)", re.IGNORECASE)
FEW = re.compile(
    r"(at most|only the|bland_sms_\w+:) %d|%(\(\w+\))?d (second|minute|deliver)", re.IGNORECASE
)
"""What never reaches a thousand."""


def test_numbers__are_not_put_into_words_bare() -> None:
    admin = [one for one in modules() if one.parent.name == "admin"]
    texts = {text for one in admin for text in marked(one.read_text("utf-8"))}
    bare = {text for text in texts if BARE.search(FEW.sub("", NAMED.sub("", text)))}

    assert bare == set()


HOLE = re.compile(r"%(\(\w+\))?[ds]")


def test_numbers__a_module_that_counts_in_words_groups_the_digits() -> None:
    """What is worded by ``ngettext`` is a quantity: unless it is small, it needs grouping."""
    counting = set()
    for one in modules():
        source = one.read_text("utf-8")
        texts = [text for text in marked(source) if HOLE.search(FEW.sub("", text))]
        if "ngettext(" in source and texts and "number_words" not in source:
            counting.add(one.relative_to(APP).as_posix())

    assert counting == {"health.py", "standing/delay.py"}  # told to operators; hours and minutes


@pytest.mark.django_db
def test_numbers__no_column_or_field_leaves_a_number_to_django(
    staff: AbstractUser, rf: RequestFactory
) -> None:
    """Django groups digits only where ``USE_THOUSAND_SEPARATOR`` says so; ours are everywhere."""
    request = rf.get("/")
    request.user = staff
    bare = set()
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label != "bland_sms":
            continue
        quantities = {
            field.name
            for field in model._meta.concrete_fields
            if isinstance(field, (models.IntegerField, models.FloatField)) and not field.primary_key
        }
        shown = {
            *model_admin.get_list_display(request),
            *flatten_fieldsets(model_admin.get_fieldsets(request)),
        }
        bare |= {f"{model.__name__}.{name}" for name in quantities & shown}

    assert bare == set()


@pytest.mark.parametrize(
    "code", [code for code, reason in REASONS.items() if "%(number)s" in str(reason.sentence)]
)
def test_numbers__of_a_reason_are_grouped_unless_they_name_a_row(code: str) -> None:
    params = {"number": 12345, "who": "dana", "hours": 1}
    said = str(Failure(code, params))
    is_name = re.search(r"(?i:update|standing order) %\(number\)s", str(REASONS[code].sentence))
    assert ("12345" if is_name else "12,345") in said


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 1 second"),
        (89, "about 89 seconds"),
        (90, "about 2 minutes"),
        (5000, "about 83 minutes"),
        (10_000, "about 3 hours"),
        (9_000_000, "about 2,500 hours"),
    ],
)
def test_numbers__of_a_duration(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


THOUSANDS = 1234
"""Of each thing on the pages below, and of nothing else."""


@pytest.fixture
def thousands(staff: AbstractUser) -> list[str]:
    """Pages that tell of more than a thousand of something; how many of each is said elsewhere."""
    run = SyncRun.objects.create(
        status="finished", seen=THOUSANDS, created=THOUSANDS, changed=THOUSANDS, failed=THOUSANDS
    )
    now = timezone.now()
    rows = Conversation.objects.bulk_create(
        Conversation(
            pk=f"c{n}",
            message_count=THOUSANDS,
            updated_at=now,
            last_activity_at=now,
            created_at=now,
        )
        for n in range(THOUSANDS)
    )
    ConversationEvent.objects.bulk_create(
        ConversationEvent(conversation=row, kind="started", at=now, observed_at=now, source=1)
        for row in rows
    )
    draft = BulkUpdate.objects.create(is_active=False, requested_by=staff, source="admin")
    PastedLine.objects.bulk_create(
        PastedLine(bulk_update=draft, number=n, state="not_found", text="x")
        for n in range(THOUSANDS)
    )
    counts = dict.fromkeys(BulkUpdateItem.State.values, THOUSANDS)
    done = BulkUpdate.objects.create(
        is_active=False, status="finished", started_at=now, counts_at_rest=counts
    )
    item = BulkUpdateItem(bulk_update=done, conversation_id="c7", state="failed")
    item.attempts = THOUSANDS
    item.save()
    delivery = WebhookDelivery.objects.create(
        conversation_id="c7", kind="call", count=THOUSANDS, attempts=THOUSANDS, received_at=now
    )
    order = StandingOrder.objects.create(
        customer_key="15550001111",
        starts_at=now,
        applied_count=THOUSANDS,
        last_applied_at=now,
        suspended_code="order_too_often",
        suspended_params={"number": THOUSANDS, "hours": 24},
    )
    erasure = Erasure.objects.create(counts={"messages": THOUSANDS})
    return [
        "syncrun/",
        f"syncrun/{run.pk}/change/",
        "conversation/",
        "conversation/c7/change/",
        "conversation/summary/",
        "bulkupdate/",
        f"bulkupdate/{done.pk}/change/",
        f"bulkupdate/{draft.pk}/confirm/",
        "webhookdelivery/",
        f"webhookdelivery/{delivery.pk}/change/",
        "standingorder/",
        f"standingorder/{order.pk}/change/",
        "erasure/",
        f"erasure/{erasure.pk}/change/",
    ]


@pytest.mark.django_db
def test_numbers__of_what_is_counted_are_grouped_on_every_page(
    client: Client, staff: AbstractUser, thousands: list[str]
) -> None:
    client.force_login(staff)
    for url in thousands:
        html = client.get(f"/admin/bland_sms/{url}").content.decode()
        words = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)
        assert "1,234" in words, url
        assert "1234" not in words, url


@pytest.mark.django_db
def test_numbers__that_name_a_line_have_no_groups_even_where_django_groups(
    client: Client, staff: AbstractUser, settings: Any
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    client.force_login(staff)
    draft = BulkUpdate.objects.create(is_active=False, requested_by=staff, source="admin")
    for number, state in ((THOUSANDS, "ambiguous"), (5678, "twice")):
        line = PastedLine(bulk_update=draft, number=number, state=state, same_as=THOUSANDS)
        line.candidates = [{"customer": "15550001111"}]
        line.save()

    html = client.get(f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/").content.decode()
    assert '<th scope="row">1234</th>' in html
    assert "Customer of line 1234" in html
    assert "The same as line 1234." in html
    assert "1,234" not in html


def test_times__are_told_with_their_zone() -> None:
    """``shown_time`` tells it by itself; beside any other time the template does."""
    templates = {one: one.read_text("utf-8") for one in (APP / "templates").rglob("*.html")}
    without = {
        one for one, text in templates.items() if "<time" in text and "TIME_ZONE" not in text
    }

    assert len(templates) > 15
    assert without == set()
