"""The app as Django sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from .models import Conversation


class BlandSmsConfig(AppConfig):
    name = "bland_sms"
    verbose_name = _("Bland SMS")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import (
            checks,  # noqa: F401  registers them
            mirror,
            users,
        )

        users.watch()
        mirror.watchers.append(_look_for_orders)


def _look_for_orders(rows: Sequence[Conversation]) -> None:
    from . import standing

    standing.look(rows)
    standing.look_for_stop_words(rows)
