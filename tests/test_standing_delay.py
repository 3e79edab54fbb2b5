"""How long it takes here until an order sees a new conversation, and how that is said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import SyncRun, WebhookDelivery
from bland_sms.standing import delay

pytestmark = pytest.mark.django_db
DAY = 24 * 3600
SECRETS = ["whsec_one"]


@pytest.mark.parametrize(
    ("secrets", "seconds_ago", "told"),
    [
        (SECRETS, [0], True),
        (SECRETS, [8 * DAY, 6.9 * DAY], True),
        (SECRETS, [7.1 * DAY], False),
        (SECRETS, [], False),
        ([], [0], False),  # what comes is refused
    ],
)
def test_how_long__by_webhook(
    secrets: list[str], seconds_ago: list[float], told: bool, set_bland: Callable[..., None]
) -> None:
    set_bland(WEBHOOK_SECRETS=secrets)
    for number, ago in enumerate(seconds_ago):
        moment = timezone.now() - timedelta(seconds=ago)
        WebhookDelivery.objects.create(body_sha256=f"{number:064}", received_at=moment)

    assert standing.how_long() == (told, None)


def test_how_long__setting_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told elsewhere, and no page fails for it."""

    def unreadable() -> Any:
        raise ImproperlyConfigured

    WebhookDelivery.objects.create(body_sha256="0" * 64)
    monkeypatch.setattr(delay, "get_settings", unreadable)
    assert standing.how_long() == (False, None)


@pytest.mark.parametrize(
    ("seconds_ago", "values", "told"),
    [
        ([], {}, None),
        ([10], {}, None),  # one run is no timer
        ([10, 310], {}, 300),
        ([10, 310, 611, 5000], {}, 301),  # the usual gap
        ([10, 310, 610, 910, 1310, 1810, 2310, 2810, 3110, 3410], {}, 400),  # of eight runs
        ([0, 0], {}, None),
        ([0, 0.1], {}, 1),
        ([950, 1250], {}, 300),  # it is late, but not for three gaps and a minute
        ([970, 1270], {}, None),
        ([10, 310], {"trigger": "task"}, 300),
        ([10, 310], {"trigger": "admin"}, None),
        ([10, 310], {"mode": "full"}, None),
    ],
)
def test_how_long__by_timer(
    seconds_ago: list[float],
    values: dict[str, str],
    told: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    for ago in reversed(seconds_ago):
        moment = now - timedelta(seconds=ago)
        run = {"mode": "incremental", "trigger": "command", "status": "finished", **values}
        SyncRun.objects.create(started_at=moment, **run)

    assert standing.how_long() == (False, told)


@pytest.mark.parametrize(
    ("by_webhook", "seconds", "words"),
    [
        (True, 300, "How long it takes here, by webhook: seconds; by timer: up to 5 minutes."),
        (True, None, "by webhook: seconds. No timer copies what they miss."),
        (False, 1, "by timer: up to 1 minute. No webhook came in lately."),
        (False, 100, "up to 2 minutes."),
        (False, 7199, "up to 120 minutes."),
        (False, 7200, "up to 2 hours."),
        (False, 7201, "up to 3 hours."),
        (False, None, "Orders act when somebody presses Refresh."),
    ],
)
def test_words(by_webhook: bool, seconds: int | None, words: str) -> None:
    assert words in standing.Delay(by_webhook, seconds).words
