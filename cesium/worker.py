"""A thread of an engine's own: started by its first call, asleep between calls, ended with it.

It holds no reference to the engine while it sleeps, so an engine that was dropped can be collected.
All that threads share is a SimpleQueue, which takes no lock for `put`: calls may be made from
anywhere, a signal handler or a finalizer in the midst of another call included.
"""

from __future__ import annotations

import os
import threading
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cesium.engine import StoreEngine


class Worker:
    """What waits in `_calls` is taken up by `_run`, which ends at None."""

    def __init__(self, engine: StoreEngine, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[float | None] = SimpleQueue()  # when it was called; None: the end
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._engine = weakref.ref(engine, lambda _: self._end())

    def stop(self) -> None:
        """Ends the thread, which may be the calling one, once what it is at is done."""
        self._end()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _started(self) -> bool:
        """Whether there is a thread to call; False where none can be had."""
        if self._thread is None:
            thread = threading.Thread(target=self._run_all, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as many threads as the system allows, or it is shutting down
                return False
            self._thread = thread
        return True

    def _end(self) -> None:
        if os.getpid() == self._process:  # a forked child has no thread to end
            self._calls.put(None)

    def _run_all(self) -> None:
        self._run()
        # An interrupt, or two first calls at once, may have started a second one.
        self._calls.put(None)

    def _run(self) -> None:
        """Does what was called for, until the end."""
        raise NotImplementedError
