#!/usr/bin/env bash
# A second row with the same composite primary key passes a Django form and a REST serializer; the database refuses it.
#
# Versions: Django 5.2.19, djangorestframework 3.18.3.
# Expected: what a model declares to be unique (unique=True, unique_together, UniqueConstraint) is checked by ModelForm
#   and by ModelSerializer, which answers 400; so is a CompositePrimaryKey whose fields are all in the form.
# Seen: neither looks. The form is valid, and the POST ends in IntegrityError, a 500. Under unique_together the same two
#   columns give an invalid form and a 400.
# Matters: whoever turns a unique_together into the key on the way to Django 5.2 loses the check without a word.
# Source: https://docs.djangoproject.com/en/5.2/topics/composite-primary-key/ (forms leave the virtual field "pk" out)
#   get_unique_together_validators in
#   https://github.com/encode/django-rest-framework/blob/main/rest_framework/serializers.py
# Exit: 0 as stated, 1 if that changed, 2 if it cannot run.
set -u
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python=$work/env/bin/python
{ "${PYTHON:-python3}" -m venv "$work/env" && "$python" -m pip install --quiet --disable-pip-version-check \
    djangorestframework==3.18.3 Django==5.2.19; } >"$work/pip.log" 2>&1 \
    || { echo "cannot run: the packages could not be installed"; tail -n 2 "$work/pip.log"; exit 2; }
cd "$work" && "$python" -I - <<'PY'
import logging
import sys

import django
from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []},
)
django.setup()
logging.disable()  # the traceback of the 500

from django.db import connection, models
from django.forms import modelform_factory
from django.urls import path
from rest_framework import generics, serializers
from rest_framework.test import APIClient


class Line(models.Model):
    country = models.CharField(max_length=2)
    number = models.CharField(max_length=20)

    class Meta:
        abstract = True
        app_label = "lines"


class Together(Line):
    class Meta(Line.Meta):
        unique_together = [("country", "number")]


class Composite(Line):
    pk = models.CompositePrimaryKey("country", "number")


def view_of(table):
    meta = type("Meta", (), {"model": table, "fields": ["country", "number"]})
    serializer = type("Serializer", (serializers.ModelSerializer,), {"Meta": meta})
    return generics.CreateAPIView.as_view(queryset=table.objects.all(), serializer_class=serializer)


urlpatterns = [path(f"{table.__name__}/", view_of(table)) for table in (Together, Composite)]
client = APIClient(raise_request_exception=False)
row, seen = {"country": "DE", "number": "100"}, {}
for table in (Together, Composite):
    with connection.schema_editor() as editor:
        editor.create_model(table)
    statuses = [client.post(f"/{table.__name__}/", row).status_code for _ in range(2)]
    form = modelform_factory(table, fields=["country", "number"])(row)
    seen[table] = (statuses, form.is_valid())
    print(f"{table.__name__:10} POST twice: {statuses}; form is valid: {form.is_valid()}")
as_stated = seen == {Together: ([201, 400], False), Composite: ([201, 500], True)}
print("as stated" if as_stated else "this changed")
sys.exit(0 if as_stated else 1)
PY
