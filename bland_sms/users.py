"""Deleted users: our rows forget them, in whichever database each of the two is."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db.models.signals import post_delete

from .database import using
from .models.fields import UserKey


def watch() -> None:
    """Listen to the deletion of users, by a proxy of their model too."""
    users = get_user_model()._meta.concrete_model
    for model in apps.get_models():
        if model._meta.concrete_model is users:
            post_delete.connect(forget_user, sender=model, dispatch_uid="bland_sms.users")


def forget_user(instance: Any, **kwargs: Any) -> None:
    """The names that rows keep beside their keys stay."""
    for model in apps.get_app_config("bland_sms").get_models():
        for field in model._meta.fields:
            if isinstance(field, UserKey):
                rows = model._base_manager.using(using(model))
                rows.filter(**{field.name: instance.pk}).update(**{field.name: None})
