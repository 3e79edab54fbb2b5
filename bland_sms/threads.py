"""Threads that ask Bland: started when needed, never waited for at their start, daemons."""

from __future__ import annotations

import _thread
import math
import queue
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

Given = ParamSpec("Given")
Value = TypeVar("Value")


class Job(Protocol):
    """A piece of work for one thread."""

    def run(self) -> None:
        """Do it, in any of the threads; never raises."""

    @property
    def is_news(self) -> bool:
        """Whether whoever waits must know at once what came of it."""


class Crew:
    """Up to ``size`` threads that carry jobs out."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._todo: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._over: deque[None] = deque()
        """One for each job that is over since ``wait`` returned last."""
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._wanted = math.inf
        """How many jobs that are over ring it."""
        self._started = 0
        self._serving: set[int] = set()

    def submit(self, job: Job) -> None:
        self._todo.put(job)
        if self._started < self._size:
            self._start_thread()

    def wait(self, seconds: float, number: int = 1) -> None:
        """Wait until ``number`` jobs are over, or one that is news; which, the jobs know.

        To wake the driver for each of them would cost as much as a request.
        """
        self._wanted = number
        try:
            if len(self._over) < number:
                self._bell.get(timeout=seconds)
            while True:
                self._bell.get_nowait()
        except queue.Empty:
            self.replace_lost()
        self._over.clear()

    def replace_lost(self) -> None:
        """Start another thread where jobs wait and all threads have ended, such as by an exception
        that was meant for the driver."""
        if not self._serving and not self._todo.empty():
            self._start_thread()

    def dismiss(self) -> None:
        """Let the threads end as soon as they have finished what they are at."""
        for _ in range(self._started + 1):
            self._todo.put(None)

    def _start_thread(self) -> None:
        """Start a thread without waiting for it, as ``threading.Thread.start`` would.

        Before Python 3.12 a new thread bears for a moment the identity of the one that starts it.
        An exception that a task queue raises asynchronously in the driving thread then ends the new
        thread instead, and ``Thread.start`` waits for ever for it to begin (``new_threadstate`` in
        CPython's ``pystate.c``; ``findings/time_limit_while_a_thread_starts.sh``).
        Such threads are daemons: a process that must end does not wait for an answer of Bland's.
        """
        try:
            # In the context of the driver: the spans of a tracer keep their parent.
            _thread.start_new_thread(copy_context().run, (self._serve,))
        except RuntimeError:  # the system gives no more of them
            if not self._started:
                raise
            return
        self._started += 1

    def _serve(self) -> None:
        ident = _thread.get_ident()
        self._serving.add(ident)
        try:
            while (job := self._todo.get()) is not None:
                job.run()
                self._over.append(None)
                if job.is_news or len(self._over) >= self._wanted:
                    self._wanted = math.inf
                    self._bell.put(None)
        finally:
            self._serving.discard(ident)


class Pool(Executor):
    """The same as an executor: where ``ThreadPoolExecutor`` would start its threads by waiting."""

    def __init__(self, size: int) -> None:
        self._crew = Crew(size)
        self._open: set[Future[Any]] = set()

    def submit(
        self, function: Callable[Given, Value], /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Value]:
        future: Future[Value] = Future()
        self._open = {one for one in self._open if not one.done()}
        self._open.add(future)
        # In this context: the spans of a tracer keep their parent.
        work = partial(copy_context().run, function, *args, **kwargs)
        self._crew.submit(_Call(future, work))
        return future

    def wait(self, futures: Collection[Future[Value]], seconds: float) -> set[Future[Value]]:
        """Wait until one of them is over, ``seconds`` at most; all that are."""
        done, _left = wait(futures, seconds, FIRST_COMPLETED)
        if not done:
            self._crew.replace_lost()
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for future in self._open if cancel_futures else ():
            future.cancel()
        try:
            while wait and (left := {one for one in self._open if not one.done()}):
                self.wait(left, 1.0)
        finally:
            self._crew.dismiss()


class _Call:
    """A call whose outcome goes into a future."""

    is_news = False  # the future tells it

    def __init__(self, future: Future[Any], work: Callable[[], Any]) -> None:
        self._future, self._work = future, work

    def run(self) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001  raised where the outcome is asked for
            self._future.set_exception(error)
        else:
            self._future.set_result(result)
