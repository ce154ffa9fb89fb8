"""What the compiled engine calls back: for a journal file to append to, and for what a commit still
waits for.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from cesium._engine import TableCore
from cesium._journal import JournalWriter
from cesium.durability import sync
from cesium.errors import Error
from cesium.replay import journal_name

if TYPE_CHECKING:
    from cesium.engine import StoreEngine


class EngineHost:
    """The compiled engine's way back to its StoreEngine, without a cycle for gc to free."""

    def __init__(self, engine: StoreEngine) -> None:
        self._engine = weakref.ref(engine)

    def _owner(self) -> StoreEngine:
        engine = self._engine()
        if engine is None:
            raise Error("the store was dropped")
        return engine

    def open_journal(self) -> JournalWriter:
        return self._owner().open_journal()

    def journal_writer(self) -> JournalWriter | None:
        return self._owner().journal_writer()

    def rotate_journal(self, frame_bytes: int) -> JournalWriter:
        return self._owner().rotate_journal(frame_bytes)

    def journal_path(self, number: int) -> str:
        return self._owner().files.path(journal_name(number))

    def memtable_full(self, core: TableCore) -> None:
        self._owner().memtable_full(core)

    def schedule_sync(self) -> None:
        self._owner().interval_sync.schedule()

    def checkpoint(self) -> None:
        owner = self._owner()
        owner.checkpoint(owner)

    def make_room(self) -> None:
        owner = self._owner()
        owner.make_room(owner, True)

    def wait_for_turn(self) -> None:
        self._owner().turn.wait()

    def sync(self) -> None:
        sync(self._owner())
