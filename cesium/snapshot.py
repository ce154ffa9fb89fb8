"""Snapshots: a store as it was at one commit, for as long as somebody wants to read it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from cesium._engine import WriteGuard
from cesium.ordered import OrderedReads

if TYPE_CHECKING:
    from cesium.engine import StoreEngine


class Snapshot(OrderedReads):
    """A frozen view of a store: all its reads, at one commit.

    Made by `Store.snapshot`, in microseconds whatever the size of the store: it pins the segments
    and the memtables of that moment, and copies nothing.  Writers go on; what they replace stays on
    the drive and in memory until the snapshot is closed, or collected.  Any method may be called
    from any thread.  After the store was closed a snapshot raises ClosedError.
    """

    def __new__(cls, engine: StoreEngine) -> Snapshot:
        return super().__new__(cls, engine.core, engine.keys, engine.values)

    def __init__(self, engine: StoreEngine) -> None:
        self._path = engine.path
        # Between two commits: the moment, and the sequence that belongs to it.  A read-only or
        # poisoned store has snapshots, too.
        with WriteGuard(engine.core_engine, closing=True):
            self._fix()
            self.sequence: int = engine.sequence
        engine.snapshots[id(self)] = self

    def close(self) -> None:
        """Lets go of what it reads; may be called again."""
        self._close_handle()

    def __enter__(self) -> Snapshot:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _title(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}snapshot of {self._path or ':memory:'!r} at sequence {self.sequence}>"
