"""A host's own API, with names of ours, and its own schema of everything."""

from __future__ import annotations

from typing import Any

from django.urls import include, path
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.permissions import AllowAny

from bland_sms.models import SyncRun
from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "drf_spectacular"]
ROOT_URLCONF = "tests.schema_host"


class MessageSerializer(serializers.ModelSerializer[SyncRun]):
    """Of the same name as one of ours, with enums of the same names."""

    state = serializers.ChoiceField(["open", "shut"])
    status = serializers.ChoiceField(["red", "green"])

    class Meta:
        model = SyncRun
        fields = ("id", "state", "status", "cursor")


class OwnView(ListAPIView[SyncRun]):
    schema = AutoSchema()
    permission_classes = [AllowAny]
    queryset = SyncRun.objects.all()
    serializer_class = MessageSerializer


class OwnSchema(SpectacularJSONAPIView):
    schema = None
    permission_classes = [AllowAny]
    serve_public = True


class SchemaOfOwn(OwnSchema):
    """As it would be without ours."""

    patterns = [path("messages/", OwnView.as_view())]


def nothing(endpoints: list[Any]) -> list[Any]:
    """A hook that leaves everything out."""
    return []


urlpatterns = [
    path("messages/", OwnView.as_view()),
    path("schema/", OwnSchema.as_view()),
    path("schema-of-own/", SchemaOfOwn.as_view()),
    path("<str:tenant>/texts/", include("bland_sms.urls")),
]
