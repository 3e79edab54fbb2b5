"""A service manager's SIGTERM, and Ctrl-C, end a command well: nothing new, the rest written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Within the block SIGTERM and SIGINT set the event; a second one raises KeyboardInterrupt.

    An exception could come between any two lines, after an answer was read and before it was
    kept. Outside the main thread, where no handler can be set, nothing ever sets the event.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def handle(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
