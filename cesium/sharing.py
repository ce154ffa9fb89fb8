"""Which engines this process writes with, and how their handles are counted.

A path open for writing is one engine: each handle joins it, and the last to leave must close it.  A
read-only handle on any other path has an engine of its own, for it sees the moment of its opening.

Locks: `opening_lock` (one store is opened at a time) comes before every other; `registry_lock` is
the innermost, and held only to count a handle.  Both are RLocks: a signal handler or a collected
handle may come in the midst of what holds them.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from cesium.errors import ConflictError

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

opening_lock = threading.RLock()
registry_lock = threading.RLock()
registry: dict[tuple[int, int], StoreEngine] = {}  # by device and inode of the directory


class Shared:
    """What an engine is to its handles: counted, closed once, and waited for."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.handles = 0
        self.identity = (0, 0)  # device and inode of the directory
        self.ending_thread = 0  # that closes the last handle, once one does
        self.ended = threading.Event()

    def join(self) -> bool:
        """Counts one more handle; False when the last one has been closed."""
        with registry_lock:
            self.handles += 1
            if self.ending_thread:
                self.handles -= 1
                return False
            return True

    def leave(self) -> bool:
        """Counts one handle less; True when it was the last: the caller must close the engine."""
        with registry_lock:
            self.handles -= 1
            if self.handles or self.ending_thread:
                return False
            self.ending_thread = threading.get_ident()
            return True

    def end(self) -> None:
        """Lets those go on who wait for the engine to be closed, to open its path again."""
        with registry_lock:
            if registry.get(self.identity) is self:
                del registry[self.identity]
        self.ended.set()

    def wait_ended(self) -> None:
        """Waits for the thread that closes the last handle."""
        if self.ending_thread == threading.get_ident():
            raise ConflictError(f"{self.path} is being closed further up in this thread")
        self.ended.wait()


def _after_fork_in_child() -> None:
    """A child has the parent's memory but none of its threads, and no store is open in it."""
    global opening_lock, registry_lock
    opening_lock = threading.RLock()
    registry_lock = threading.RLock()
    registry.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
