"""Columns that every database must understand in the same way."""

from __future__ import annotations

import unicodedata
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class BlandIdField(models.CharField):  # type: ignore[type-arg]
    """Bland's id of a conversation: text in which ``a`` and ``A`` differ on every database.

    MariaDB and MySQL compare text without regard to case unless told otherwise, and a
    ``db_collation`` of theirs is an error elsewhere. A foreign key takes the collation over.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 128)
        super().__init__(*args, **kwargs)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters


def digits_of(text: str) -> str:
    """The decimal digits of a number in any notation and script, as ASCII."""
    if text.isascii():
        return "".join(filter(str.isdigit, text))
    return "".join(str(unicodedata.decimal(char)) for char in text if char.isdecimal())
