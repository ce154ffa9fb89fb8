"""A snapshot of a store for an asyncio program."""

from __future__ import annotations

from types import TracebackType

from cesium.aio.reads import Reads
from cesium.aio.workers import Workers
from cesium.ordered import OrderedReads
from cesium.snapshot import Snapshot as BlockingSnapshot


class SnapshotTable(Reads):
    """A table of a snapshot, whose reads are awaited; closed with it."""

    def __init__(self, table: OrderedReads, readers: Workers) -> None:
        self._table = table
        self._readers = readers


class Snapshot(Reads):
    """A frozen view of a store, whose reads are awaited: see cesium.Snapshot.

    Made by `Store.snapshot`.  Iterations that were begun hold what they read for themselves.
    """

    _table: BlockingSnapshot

    def __init__(self, snapshot: BlockingSnapshot, readers: Workers) -> None:
        self._table = snapshot
        self._readers = readers

    @property
    def sequence(self) -> int:
        """The sequence of the commit that it shows."""
        return self._table.sequence

    async def table(self, name: str) -> SnapshotTable:
        """A table as of the snapshot; KeyError when there was none then."""
        return SnapshotTable(await self._readers.run(self._table.table, name), self._readers)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables that there were, but for the default one."""
        return tuple(self._table.tables)

    async def close(self) -> None:
        """Lets go of what it reads; may be called again, and after the store was closed."""
        if not self.closed:
            await self._readers.run(self._table.close)

    async def __aenter__(self) -> Snapshot:
        self._readers.check()
        self._table.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<asyncio {self._table._title()[1:]}"
