"""What all views of our admin classes share: which admin they belong to."""

from __future__ import annotations

from typing import Any

from django.views.generic import View


class AdminView(View):
    """A page beside those that Django's admin has."""

    admin: Any = None
    """The admin class that it belongs to; given to ``as_view``."""
