"""Permissions of the API: those of the admin, named by each view for each of its actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from ..models import BulkUpdate

Needs = Mapping[str | None, tuple[str | tuple[str, ...], ...]]
"""Permissions by action; of a tuple within, any one will do. ``None``: OPTIONS, and methods that
there are none of. An action that is not named is refused to all users."""

VERBS = ("deactivate_conversation", "reactivate_conversation")


def may(user: Any, *codenames: str) -> bool:
    """Whether a user has one of these permissions."""
    return any(user.has_perm(f"bland_sms.{codename}") for codename in codenames)


class NamedPermission(BasePermission):
    """Lets in active accounts of this project with what the view's ``needs`` say."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        user: Any = request.user
        # A user that is no row of ours could not stand in the ledger.
        if not isinstance(user, get_user_model()) or not user.is_active:
            return False
        action = getattr(view, "action", None)
        needs = view.needs.get(None if action == "metadata" else action)  # type: ignore[attr-defined]
        if needs is None:
            return False
        return all(may(user, *([need] if isinstance(need, str) else need)) for need in needs)


def check_verb(user: Any, is_active: bool) -> None:
    """Raises PermissionDenied: this user may not ask Bland for this value."""
    if not user.has_perm(BulkUpdate(is_active=is_active).permission):
        raise PermissionDenied
