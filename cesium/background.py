"""The threads that keep a store in order: one writes memtables out, the other merges.

Two, so that a flush never waits for a merge.  Each sleeps until it is woken, and is started by the
first need (cesium/worker.py).

Once a store was written to, the flusher looks every IDLE_SECONDS whether writing has paused: then
it has the time to write out what waits (`Chore.idle`).
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable
from queue import Empty
from typing import TYPE_CHECKING

from cesium.worker import Worker

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

IDLE_SECONDS = 2.0
PAUSE_SECONDS = 10.0  # between two full memtables: who takes that long is not held up


class Chore(Worker):
    """A thread that does one thing whenever it is woken, and nothing twice at once.

    work: called with the engine; it keeps its failures to itself.  idle: called every IDLE_SECONDS
    after it was woken, until it says False: there is nothing more to watch.
    """

    def __init__(
        self,
        engine: StoreEngine,
        name: str,
        work: Callable[[StoreEngine], None],
        idle: Callable[[StoreEngine], bool] | None = None,
    ) -> None:
        super().__init__(engine, name)
        self._work = work
        self._idle = idle

    def wake(self) -> None:
        """There is something to do; at once, in this thread, where no other can be had."""
        if not self._started():
            self._call(self._work)
        elif self._calls.empty():  # what waits there is taken up before the next work begins
            self._calls.put(time.monotonic())

    def _run(self) -> None:
        watching = False
        while True:
            try:
                call = self._calls.get(timeout=IDLE_SECONDS if watching else None)
            except Empty:
                watching = self._idle is not None and self._call(self._idle) is True
                continue
            if call is None:
                return
            watching = self._idle is not None
            self._call(self._work)

    def _call(self, function: Callable[[StoreEngine], object]) -> object:
        engine = self._engine()
        return None if engine is None else function(engine)


class Speed:
    """How fast commits put bytes, from one full memtable to the next."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_second: float | None = None
        self._clock = clock
        self._bytes = 0
        self._time = 0.0

    def note(self, bytes_put: int) -> None:
        """A memtable is full, and so much was put since the store was opened."""
        now = self._clock()
        elapsed, put = now - self._time, bytes_put - self._bytes
        if self._bytes and 0 < elapsed < PAUSE_SECONDS:  # else nobody was in a hurry
            speed = put / elapsed
            before = self.bytes_per_second
            self.bytes_per_second = speed if before is None else (before + speed) / 2
        self._bytes, self._time = bytes_put, now


class Quiet:
    """Whether commits have paused, for one who looks now and then."""

    def __init__(self) -> None:
        self._seen = -1

    def is_quiet(self, sequence: int) -> bool:
        """Whether `sequence`, the last commit, is that of the look before."""
        before, self._seen = self._seen, sequence
        return before == sequence


class Background:
    """The two threads of one engine.

    A merge under way stops at its next step, and none begins, while anybody halts them: the store
    is being closed, or someone else wants to merge.
    """

    def __init__(
        self,
        engine: StoreEngine,
        flush: Callable[[StoreEngine], None],
        merge: Callable[[StoreEngine], None],
        idle: Callable[[StoreEngine], bool],
    ) -> None:
        self.flusher = Chore(engine, "cesium-flush", flush, idle)
        self.merger = Chore(engine, "cesium-merge", merge)
        self._engine = weakref.ref(engine)
        self._halts: list[None] = []  # one for each who halts; appending and popping are atomic
        self._stopped = False
        _running.add(self)

    @property
    def halting(self) -> bool:
        """Whether merges are to stop."""
        return self._stopped or bool(self._halts)

    @property
    def stopped(self) -> bool:
        """Whether the threads are to end."""
        return self._stopped

    def halt(self) -> None:
        """Has merges stop, until `go_on` was called as often."""
        self._halts.append(None)

    def go_on(self) -> None:
        """Lets merges go on."""
        self._halts.pop()

    def stop(self) -> None:
        """Ends both threads; what they have begun is finished, or undone."""
        self._stopped = True
        self.flusher.stop()
        self.merger.stop()
        engine = self._engine()
        if engine is not None:
            engine.background = None  # what comes yet, such as closing, is done by who wants it


_running: weakref.WeakSet[Background] = weakref.WeakSet()


def _stop_all() -> None:
    # Before the interpreter ends: a thread that it ends cannot be waited for by a store that is
    # closed even later, by a finalizer.
    for background in list(_running):
        background.stop()


atexit.register(_stop_all)
