"""A Bland whose limit moves, asked by many threads: simulated, without a thread or a sleep."""

from __future__ import annotations

import heapq
import math
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bland_sms.pacing import Pacer, RetryBudget, back_off_seconds
from bland_sms.pacing.account import HURRY_SECONDS, TICK_SECONDS
from bland_sms.pacing.shares import State

STEP = 0.01
"""Seconds of the integral over the limit."""


class Clock(threading.Event):
    """A monotonic clock that moves when somebody waits, and lets happen what is due meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def monotonic(self) -> float:
        return self.now

    def at(self, moment: float, call: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (moment, self._number, call))

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.until(self.now + timeout)
        return self.is_set()

    def until(self, moment: float) -> None:
        while self._due and self._due[0][0] <= moment:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = moment

    def next(self) -> None:
        """Let the next thing happen."""
        self.until(max(self.now, self._due[0][0]))


@dataclass
class Storm:
    """What came of it."""

    answered: int = 0
    refused: int = 0
    seconds: float = 0.0
    allowed: float = 0.0
    """How many calls the limit allowed meanwhile."""
    budget_left: float = 0.0
    is_out_of_budget: bool = False
    processes: list[Process] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.answered / self.allowed


class Row:
    """The row where processes meet, kept in memory."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.state = clock, State()

    def join(self, pacer: Pacer, name: str, is_alive: Callable[[], bool]) -> None:
        """Let a process look at it about once a second, until it dies."""
        looked_at = -math.inf
        number = 0

        def look(of: int) -> None:
            nonlocal looked_at, number
            if of != number or not is_alive():
                return
            number += 1
            looked_at = self.clock.now
            wanted = pacer.wanted()
            after = pacer.propose(self.state, name, wanted, self.clock.now)
            pacer.settle(self.state, after, name)
            self.state = after
            is_soon = pacer.is_in_hurry(after, name)
            again(HURRY_SECONDS if is_soon else TICK_SECONDS)

        def again(seconds: float) -> None:
            of = number
            self.clock.at(self.clock.now + seconds, lambda: look(of))

        def hurry() -> None:
            again(max(0.01, looked_at + HURRY_SECONDS - self.clock.now))

        pacer._account.hurry = hurry  # type: ignore[method-assign]
        look(0)


@dataclass
class Process:
    """What asks with one pacer and so many threads."""

    pacer: Pacer
    budget: RetryBudget
    ready: deque[int]
    paths: dict[int, str]
    answered: int = 0
    is_waiting: bool = False


def ask_all(
    clock: Clock,
    limit_at: Callable[[float], float],
    *,
    rows: int = 1500,
    threads: int = 16,
    latency: float = 0.03,
    seed: int = 0,
    seconds: float = 3600.0,
    processes: int = 1,
    rate_limit: float | None = None,
    row: Row | None = None,
    begins: Callable[[int], float] = lambda number: 0.0,
) -> Storm:
    """Ask for so many rows under a limit of calls within any one second.

    Args:
        limit_at: Calls a second, by the seconds since the beginning.
        row: Where the processes meet; ``None``: each is alone.
        begins: When each process begins, in seconds.
    """
    dice, storm, begin = random.Random(seed), Storm(), clock.now
    window: deque[float] = deque()
    asked, is_over = 0, False

    def half() -> float:
        return latency / 2 * dice.uniform(0.7, 1.6)

    def pump(process: Process) -> None:
        nonlocal asked
        if process.is_waiting or not process.ready:
            return
        thread = process.ready[0]
        if not process.paths[thread] and asked >= rows:
            process.ready.popleft()
            pump(process)
            return
        process.is_waiting = process.pacer._turnstile.acquire()
        wait = process.pacer._seconds_to_turn()
        clock.at(clock.now + wait, lambda: send(process, clock.now if wait > 0 else None))

    def send(process: Process, due: float | None) -> None:
        nonlocal asked
        process.is_waiting = False
        process.pacer._turnstile.release()
        thread = process.ready.popleft()
        if not process.paths[thread]:
            asked += 1
            process.paths[thread] = f"/{asked}"
        process.pacer._take(due)
        sent_at = clock.now
        clock.at(clock.now + half(), lambda: serve(process, thread, sent_at))
        pump(process)

    def serve(process: Process, thread: int, sent_at: float) -> None:
        while window and window[0] <= clock.now - 1:
            window.popleft()
        is_refused = len(window) >= limit_at(clock.now - begin)
        if not is_refused:
            window.append(clock.now)
        clock.at(clock.now + half(), lambda: hear(process, thread, sent_at, is_refused))

    def hear(process: Process, thread: int, sent_at: float, is_refused: bool) -> None:
        if is_refused:
            storm.refused += 1
            process.pacer.refused(sent_at)
            process.budget.refused(process.paths[thread])
            storm.is_out_of_budget |= not process.budget.may_be_refused()
            wait = back_off_seconds(1, None)
            assert wait is not None
            clock.at(clock.now + wait, lambda: again(process, thread))
        else:
            storm.answered += 1
            process.answered += 1
            process.pacer.answered(sent_at)
            process.budget.earn()
            process.paths[thread] = ""
            again(process, thread)

    def again(process: Process, thread: int) -> None:
        process.ready.append(thread)
        pump(process)

    def start(number: int) -> None:
        process = storm.processes[number]
        if row is not None:
            row.join(process.pacer, f"{begin} {number}", lambda: not is_over)
        for _ in range(threads):
            pump(process)

    for number in range(processes):
        all_threads = range(threads)
        storm.processes.append(
            Process(
                Pacer(rate_limit),
                RetryBudget(),
                deque(all_threads),
                dict.fromkeys(all_threads, ""),
            )
        )
        clock.at(begin + begins(number), partial(start, number))
    while storm.answered < rows and clock.now - begin < seconds and not storm.is_out_of_budget:
        clock.next()
    is_over = True
    storm.seconds = clock.now - begin
    storm.budget_left = min(process.budget.tokens for process in storm.processes)
    storm.allowed = sum(
        max(1.0, limit_at(step * STEP)) * STEP for step in range(int(storm.seconds / STEP))
    )
    return storm
