"""The thread behind durability "interval": syncs the journal a moment after a commit.

A commit that finds no sync scheduled schedules one; the thread waits until half the promised time
has passed since then, so that commits gather and the sync itself has the other half, and syncs all
that is there; a journal file that will soon be needed it makes ahead.  With nothing to sync it
sleeps.  It is started by the first commit that needs it (cesium/worker.py).  A failed sync poisons
the engine.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import TYPE_CHECKING

from cesium.durability import sync
from cesium.worker import Worker

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

INTERVAL_SECONDS = 0.1  # what docs/durability.md promises, and what a sync takes beyond it


class IntervalSync(Worker):
    """Syncs an engine's journal at most INTERVAL_SECONDS after `schedule`."""

    def __init__(self, engine: StoreEngine) -> None:
        super().__init__(engine, "cesium-sync")

    def schedule(self) -> None:
        """There is something to sync.  Called once until the thread takes it up."""
        if self._started():
            self._calls.put(time.monotonic())
        else:
            self._sync()

    def _run(self) -> None:
        while (scheduled := self._calls.get()) is not None:
            try:
                delay = scheduled + INTERVAL_SECONDS / 2 - time.monotonic()
                if self._calls.get(timeout=max(delay, 0)) is None:
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
