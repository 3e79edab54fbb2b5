"""Headings that Django makes of our words: "By ..." over a filter, and what a list is called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import AbstractUser
from django.test import Client
from django.urls import reverse
from django.utils.text import capfirst

from bland_sms.admin.base import MirroredAdmin

pytestmark = pytest.mark.django_db
READ_ALOUD = {
    "author",
    "event",
    "last activity",
    "mode",
    "our number",
    "outcome",
    "requested change",
    "requester",
    "source",
    "start date",
    "state",
    "status",
    "stop request",
    "trigger",
}
"""Titles of filters, each read out loud behind "By", and in Spanish behind "Por": nouns all."""


def lists() -> Iterator[MirroredAdmin[Any]]:
    for model_admin in admin.site._registry.values():
        if isinstance(model_admin, MirroredAdmin):
            yield model_admin


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


def url_of(model_admin: MirroredAdmin[Any]) -> str:
    return reverse(f"admin:bland_sms_{model_admin.opts.model_name}_changelist")


def test_headings__of_filters_read_well_behind_by(desk: Client) -> None:
    titles = {
        str(spec.title)
        for model_admin in lists()
        for spec in desk.get(url_of(model_admin)).context["cl"].filter_specs
    }

    assert len(titles) > 7
    assert titles - READ_ALOUD == set()


def test_headings__a_list_is_called_by_what_is_in_it(desk: Client) -> None:
    for model_admin in lists():
        html = desk.get(url_of(model_admin)).content.decode()
        [heading] = re.findall(r"<h1[^>]*>(.*?)</h1>", html, re.DOTALL)[-1:]
        assert unescape(heading).strip() == capfirst(model_admin.opts.verbose_name_plural)
