#!/usr/bin/env bash
# Two OpenAPI schemas in one process: which is fetched first decides a name in the other.
#
# Versions: drf-spectacular 0.30.0, djangorestframework 3.18.3, Django 5.2.19.
# Expected: a schema view's custom_settings hold for that schema: its ENUM_NAME_OVERRIDES name its enumerations, whatever
#   else was fetched before.
# Seen: the overrides are kept for the process, by language only. The schema that is fetched first has its own name, and
#   the other gets the first one's name too; in the other order it is the other way round.
# Matters: a reusable app that ships a schema of its own changes the host's, or the host's changes the app's, depending
#   on which worker answered what before. Generated clients then differ from build to build.
# Source: https://github.com/tfranzel/drf-spectacular/issues/1244
#   https://drf-spectacular.readthedocs.io/en/latest/settings.html (ENUM_NAME_OVERRIDES, custom_settings)
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    drf-spectacular==0.30.0 djangorestframework==3.18.3 Django==5.2.19; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cat >"$work/schemas.py" <<'PY'
import sys

import django
from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["rest_framework", "drf_spectacular"],
    REST_FRAMEWORK={"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema", "UNAUTHENTICATED_USER": None},
)
django.setup()

from django.test import Client
from django.urls import path
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework import generics, serializers

STATES = [("waiting", "waiting"), ("done", "done")]


class StateSerializer(serializers.Serializer):
    state = serializers.ChoiceField(choices=STATES)


class StateView(generics.RetrieveAPIView):
    serializer_class = StateSerializer


def schema_view(name):
    own = {"ENUM_NAME_OVERRIDES": {name: STATES}}
    return SpectacularJSONAPIView.as_view(custom_settings=own, patterns=[path("state/", StateView.as_view())])


urlpatterns = [path("host/", schema_view("HostState")), path("app/", schema_view("AppState"))]
for name in sys.argv[1:]:
    components = Client().get(f"/{name}/").json()["components"]["schemas"]
    print(name, next(component for component in components if component != "State"))
PY
cd "$work" || exit 2
host_first=$("$python" -I schemas.py host app) && app_first=$("$python" -I schemas.py app host) || exit 1
printf 'host first:\n%s\napp first:\n%s\n' "$host_first" "$app_first"
if [ "$host_first" = $'host HostState\napp HostState' ] && [ "$app_first" = $'app AppState\nhost AppState' ]; then
    echo "as stated"
else
    echo "this changed"
    exit 1
fi
