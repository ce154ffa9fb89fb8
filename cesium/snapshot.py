"""Snapshots: a store as it was at one commit, for as long as somebody wants to read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cesium._engine import WriteGuard
from cesium._ranges import View
from cesium.ordered import OrderedReads
from cesium.typed import K, V

if TYPE_CHECKING:
    from cesium.engine import StoreEngine
    from cesium.table_engine import TableEngine


class SnapshotTable(OrderedReads[K, V]):
    """A table as it was at the commit of a snapshot: all its reads.

    Made by `Snapshot.table`, and closed with it.
    """

    def __new__(cls, table: TableEngine, view: View) -> Self:
        return super().__new__(cls, table.core, *table.codecs)

    def __init__(self, table: TableEngine, view: View) -> None:
        self._path = table.path
        self._key_names = table.record.key_names
        self._fix(view)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's columns; () where it has none."""
        return self._key_names

    def _title(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}snapshot of {self._path}>"


class SnapshotTables(Mapping[str, SnapshotTable]):
    """The tables of a snapshot by name, but for the default one."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __getitem__(self, name: str) -> SnapshotTable:
        return self._snapshot.table(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot._moments)

    def __len__(self) -> int:
        return len(self._snapshot._moments)


class Snapshot(OrderedReads[K, V]):
    """A frozen view of a store: all its reads, at one commit.

    Made by `Store.snapshot`, in microseconds whatever the size of the store: it pins the segments
    and the memtables of that moment, and copies nothing.  It shows the default table; `table` gives
    the others, as of the same commit.  Writers go on; what they replace stays on the drive and in
    memory until the snapshot is closed, or collected.  Any method may be called from any thread.
    After the store was closed a snapshot raises ClosedError.
    """

    def __new__(cls, engine: StoreEngine) -> Self:
        return super().__new__(cls, engine.main.core, *engine.main.codecs)

    def __init__(self, engine: StoreEngine) -> None:
        self._path = engine.path
        self._key_names = engine.main.record.key_names
        self._opened: dict[str, SnapshotTable] = {}
        # Between two commits: the moment, and the sequence that belongs to it.  A read-only or
        # poisoned store has snapshots, too.
        with WriteGuard(engine.core_engine, closing=True):
            self._fix()
            self._moments = {
                table.record.name: (table, View(table.core))
                for table in engine.tables.values()
                if table is not engine.main
            }
            self.sequence: int = engine.sequence
        engine.snapshots[id(self)] = self

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's columns; () where it has none."""
        return self._key_names

    def table(self, name: str) -> SnapshotTable:
        """A table by its name, as of the snapshot; KeyError when there was none then."""
        self._check_open()
        found = self._opened.get(name)
        if found is None:
            if name not in self._moments:
                raise KeyError(f"there was no table {name!r} at sequence {self.sequence}")
            found = self._opened.setdefault(name, SnapshotTable(*self._moments[name]))
        return found

    @property
    def tables(self) -> Mapping[str, SnapshotTable]:
        """The tables that there were, by name, but for the default one."""
        self._check_open()
        return SnapshotTables(self)

    def views(self) -> list[View]:
        """What it reads, of each table."""
        return [self._view(), *(view for _, view in self._moments.values())]

    def close(self) -> None:
        """Lets go of what it reads; may be called again."""
        self._close_handle()
        self._moments = {}
        opened, self._opened = self._opened, {}
        for table in opened.values():
            table._close_handle()

    def __enter__(self) -> Self:
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
