"""Make or remove the index that the search for words in messages needs."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from bland_sms.wordsearch import create, drop, exists


class Command(BaseCommand):
    help = "Make or remove the full-text index with which staff find words in messages."

    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--create", action="store_true", help="make it; may take minutes")
        which.add_argument("--drop", action="store_true", help="remove it")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["create"]:
            create()
        else:
            drop()
        self.stdout.write("There is an index." if exists() else "There is no index.")
