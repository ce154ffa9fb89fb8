"""Who may change which segments a store consists of, and when: the locks of maintenance.

`merging` is held by the one merge at a time, for as long as it takes; `maintenance`, taken after
it, by whatever changes which segments there are, a flush or the end of a merge, and so for a
moment.  Both are RLocks: a signal handler or a collected handle may come in the midst of what holds
them, and is refused by `check_not_inside` instead of waiting for itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cesium.errors import Error
from cesium.sharing import Shared

if TYPE_CHECKING:
    from cesium._engine import Engine
    from cesium.background import Background


class Exclusive(Shared):
    """What an engine is to those who maintain it."""

    core_engine: Engine
    background: Background | None

    def __init__(self, path: str | None) -> None:
        super().__init__(path)
        self.merging = threading.RLock()
        self.maintenance = threading.RLock()
        # With the lock held: by a call further up in this thread.
        self.maintaining = False
        self._merging_here = False

    @property
    def is_maintained_here(self) -> bool:
        """Whether the calling thread is inside maintenance of this store."""
        if self.maintenance.acquire(blocking=False):
            inside = self.maintaining
            self.maintenance.release()
            if inside:
                return True
        if self.merging.acquire(blocking=False):
            inside = self._merging_here
            self.merging.release()
            return inside
        return False

    def check_not_inside(self, what: str) -> None:
        """Error when this thread is inside a write or maintenance of this store."""
        if self.core_engine.is_writing_here or self.is_maintained_here:
            raise Error(
                f"{what} inside a write of the same thread (a signal handler, a finalizer or a "
                "codec uses the store that called it)"
            )

    @contextlib.contextmanager
    def merging_here(self) -> Iterator[None]:
        """Holds `merging`; not for a thread that may hold it already."""
        with self.merging:
            self._merging_here = True
            try:
                yield
            finally:
                self._merging_here = False

    @contextlib.contextmanager
    def maintained(self) -> Iterator[None]:
        """Holds `maintenance`, which this thread may hold already."""
        with self.maintenance:
            before, self.maintaining = self.maintaining, True
            try:
                yield
            finally:
                self.maintaining = before

    @contextlib.contextmanager
    def exclusive_maintenance(self, what: str) -> Iterator[None]:
        """Holds `maintenance`; Error when it is held further up in this thread."""
        self.check_not_inside(what)
        with self.maintained():
            yield

    @contextlib.contextmanager
    def exclusive_merging(self, what: str) -> Iterator[None]:
        """Holds `merging`, a merge in the background being stopped first.

        Error when it, or `maintenance`, is held further up in this thread.
        """
        self.check_not_inside(what)
        background = self.background
        if background is not None:
            background.halt()
        try:
            with self.merging_here():
                yield
        finally:
            if background is not None:
                background.go_on()
