"""Programs that the tests start, and end with all of their children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Programs:
    """Starts programs of this environment in sessions of their own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self._running: list[subprocess.Popen[bytes]] = []
        self.log = log

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(child)
        return child

    def run(self, *arguments: str) -> None:
        child = self.start(*arguments)
        assert child.wait(120) == 0, self.log.read_text()

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """SIGKILL for the program and whatever it started, as when a machine goes down."""
        pids = [child.pid, *descendants(child.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait()

    def end(self) -> None:
        for child in self._running:
            self.kill(child)


def descendants(pid: int) -> list[int]:
    """Children and their children, whatever session they are in."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(after_name[1]), []).append(int(folder.name))
    found: list[int] = []
    layer = [pid]
    while layer:
        layer = [child for parent in layer for child in parents.get(parent, [])]
        found += layer
    return found
