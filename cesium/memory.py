"""Who holds the memory of a store: docs/observability.md says what each figure counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cesium._memory import TablesMemory, tables_memory
from cesium.engine import StoreEngine
from cesium.figures import bytes_text
from cesium.showing import Grid, Look


@dataclass(frozen=True, slots=True, repr=False)
class Memory:
    """Bytes that a store holds in memory, mapped files apart.

    memtable: the live ones of all tables, free pages and what old readers keep of them included.
    frozen_memtables: those that wait to be written out.  pinned: memtables that were written out,
    and that readers from before still use.  fences: of segments in use, what finds their pages;
    filters are mapped.
    checked_pages: bitmaps of the pages whose checksum was found right.  range_deletes: markers of
    segments in use.  buffers: of flushes, merges, loads and batches of puts under way: those that
    files are written from, the filter and the list of pages of each segment in the making, and what
    rows are sorted in.  iterators: rows that iterations have read ahead.  limit: the option
    memory_limit, which all of it is kept under (docs/design.md says how).
    """

    memtable: int
    frozen_memtables: int
    pinned: int
    fences: int
    checked_pages: int
    range_deletes: int
    buffers: int
    iterators: int
    limit: int

    @property
    def total(self) -> int:
        """All but the limit."""
        return sum(self._parts().values())

    def _parts(self) -> dict[str, int]:
        return {name: size for name, size in asdict(self).items() if name != "limit"}

    def as_dict(self) -> dict[str, int]:
        """The parts, their total, and the limit."""
        return {**self._parts(), "total": self.total, "limit": self.limit}

    def _look(self) -> Look:
        rows = [(name, bytes_text(size)) for name, size in self.as_dict().items()]
        return Look("", (), [Grid(("", ""), rows, "memory", (False,))])

    def __repr__(self) -> str:
        return self._look().text()

    def _repr_html_(self) -> str:
        return self._look().html()


def memory(engine: StoreEngine) -> Memory:
    """Counts what is held now: a few additions for each memtable and segment in use."""
    return memory_of(engine, tables_memory(engine.cores()))


def memory_of(engine: StoreEngine, tables: TablesMemory) -> Memory:
    """The same, of what the tables were found to hold."""
    memtables, iterators, buffers = engine.core_engine.counters.held()
    if engine.replica is not None:
        made, _, filled = engine.replica.counters.held()
        memtables, buffers = memtables + made, buffers + filled
    return Memory(
        memtable=tables.live,
        frozen_memtables=tables.frozen,
        # The three were read one after another, while memtables may have come and gone.
        pinned=max(memtables - tables.live - tables.frozen, 0),
        fences=tables.fences,
        checked_pages=tables.checked_pages,
        range_deletes=tables.range_deletes,
        buffers=buffers,
        iterators=iterators,
        limit=engine.options.memory_limit_bytes,
    )
