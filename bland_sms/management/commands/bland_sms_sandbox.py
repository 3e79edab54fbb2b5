"""Run the stand-in for Bland as a local server."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bland_sms.sandbox import BlandSandbox, seed_account
from bland_sms.sandbox.faults import Fault, check_fault


class Command(BaseCommand):
    help = "A stand-in for Bland on this machine: stateful, and as faulty as it is told to be."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
        parser.add_argument("--key", default="sandbox-key", help="the key that it accepts")
        parser.add_argument("--seed", type=int, default=200, help="conversations to begin with")
        parser.add_argument("--dialect", choices=("a", "b"), default="a", help="of the list")
        parser.add_argument("--envelope", action="store_true", help='answer updates inside "data"')
        parser.add_argument("--rate-limit", type=float, help="calls a second; more get a 429")
        parser.add_argument("--latency", type=float, default=0, help="seconds for each answer")
        parser.add_argument(
            "--fault",
            action="append",
            default=[],
            metavar="TARGET=FAULT",
            help="such as conv_1=hang_after:5 or *=forever:500; may be repeated",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        faults = [self._fault(text) for text in options["fault"]]
        try:
            sandbox = BlandSandbox(
                port=options["port"],
                api_key=options["key"],
                enveloped=options["envelope"],
                dialect=options["dialect"],
                rate_limit=options["rate_limit"],
                latency_seconds=options["latency"],
            )
        except OSError as error:
            raise CommandError(f"port {options['port']}: {error.strerror}") from None
        except OverflowError:
            raise CommandError(f"port {options['port']}: not a port", returncode=2) from None
        for target, fault in faults:
            sandbox.faults.add(target, fault)
        seed_account(sandbox.account, options["seed"])
        try:
            self.stdout.write(f"The stand-in for Bland listens on {sandbox.base_url}")
            self.stdout.write(f"BLAND_BASE_URL={sandbox.base_url} BLAND_API_KEY={options['key']}")
            self.stdout.flush()
            sandbox.serve_forever()
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")

    def _fault(self, text: str) -> tuple[str, Fault]:
        target, found, name = text.partition("=")
        if not found:
            raise CommandError(f"--fault {text!r} is not TARGET=FAULT", returncode=2)
        try:
            fault: Fault = json.loads(name) if name.startswith("{") else name
            check_fault(fault)
        except ValueError as error:
            raise CommandError(f"--fault {text!r}: {error}", returncode=2) from None
        return target, fault
