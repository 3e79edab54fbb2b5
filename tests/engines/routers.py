"""Procrastinate's tables are in a database of their own: it wants PostgreSQL, the app any."""

from __future__ import annotations

from typing import Any


class QueueRouter:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "queue" if model._meta.app_label == "procrastinate" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (db == "queue") == (app_label == "procrastinate")
