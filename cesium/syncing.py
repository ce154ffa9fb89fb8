"""The thread behind durability "interval": syncs the journal a moment after a commit.

A commit that finds no sync scheduled schedules one; the thread waits until half the promised time
has passed since then, so that commits gather and the sync itself has the other half, and syncs all
that is there; a journal file that will soon be needed it makes ahead.  With nothing to sync it
sleeps.  It is started by the first commit that needs it.

The thread holds no reference to the engine while it sleeps, so an engine that was dropped can be
collected; `stop` ends it.  A failed sync poisons the engine.

Both methods may be called from anywhere, a signal handler in the midst of either included: all that
threads share is a SimpleQueue, which takes no lock for `put`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from cesium.durability import sync

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

INTERVAL_SECONDS = 0.1  # what docs/durability.md promises, and what a sync takes beyond it


class IntervalSync:
    """Syncs an engine's journal at most INTERVAL_SECONDS after `schedule`."""

    def __init__(self, engine: StoreEngine) -> None:
        self._times: SimpleQueue[float | None] = SimpleQueue()  # scheduled when; None: the end
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._engine = weakref.ref(engine, lambda _: self._end())

    def schedule(self) -> None:
        """There is something to sync.  Called once until the thread takes it up."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="cesium-sync", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as many threads as the system allows, or it is shutting down
                self._sync()
                return
            self._thread = thread
        self._times.put(time.monotonic())

    def stop(self) -> None:
        """Ends the thread, which may be the calling one, once a sync under way is done."""
        self._end()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _end(self) -> None:
        if os.getpid() == self._process:  # a forked child has no thread to end
            self._times.put(None)

    def _run(self) -> None:
        while (scheduled := self._times.get()) is not None:
            try:
                delay = scheduled + INTERVAL_SECONDS / 2 - time.monotonic()
                if self._times.get(timeout=max(delay, 0)) is None:
                    return
            except Empty:
                pass
            if not self._sync():
                return

    def _sync(self) -> bool:
        """Syncs what is there by now; False when there is nothing more to sync, ever."""
        engine = self._engine()
        if engine is None:
            return False
        inner = engine.core_engine
        inner.sync_scheduled = False  # before the sync reads how far to go
        try:
            sync(engine)
            engine.journal.prepare_next()
        except Exception as error:
            inner.poisoned = inner.poisoned or error
            inner.untold = True
            return False
        return True
