"""How many statements each page costs: pinned in a file, and the same however many rows there are.

A page that costs more or fewer on purpose is pinned anew with

    BLAND_SMS_PIN=1 python -m pytest tests/test_query_counts.py

and the change of ``query_counts.json`` is looked at like any other.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from django.contrib.auth.models import AbstractUser
from django.test import Client

from tests.pages import Rows, counts

PINNED = Path(__file__).parent / "query_counts.json"
FEW, MANY = 100, 2000


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.urls("tests.addresses")
def test_pages__cost_what_is_pinned_at_any_number_of_rows(
    client: Client, staff: AbstractUser
) -> None:
    client.force_login(staff)
    rows = Rows(staff)
    rows.grow_to(FEW)
    few = counts(client, rows)
    if os.environ.get("BLAND_SMS_PIN"):
        PINNED.write_text(json.dumps(few, indent=2, sort_keys=True) + "\n")
    assert few == json.loads(PINNED.read_text())
    rows.grow_to(MANY)
    assert counts(client, rows) == few
