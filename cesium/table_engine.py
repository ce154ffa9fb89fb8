"""One table of an open store: its schema, and the sources that its reads merge.

What tables share, the files, the journal, the manifest, the locks, is the StoreEngine's
(cesium/engine.py).

Thread safety: `core` is safe from any thread; sources are changed under the writer lock.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cesium._engine import TableCore
from cesium._keys import KeyCodec
from cesium._memtable import MemtableSnapshot
from cesium._segment import SegmentReader
from cesium._values import ValueCodec
from cesium._version import Version
from cesium.directory import segment_name
from cesium.errors import Error
from cesium.schema import codecs_of, shape_of_table, stored_codecs
from cesium.state import SegmentRecord, TableRecord

if TYPE_CHECKING:
    from cesium.engine import StoreEngine

TIER_NEW = 0  # sources of flushes and loads, newest first, may overlap
TIER_BASE = 1  # the last tier: one run, no markers; filters only of what was moved there

Source = MemtableSnapshot | list[SegmentReader]


class TableEngine:
    """A table of a store that is open; it does not keep the store open."""

    def __init__(self, store: StoreEngine, record: TableRecord, slots_max: int) -> None:
        self._store = weakref.ref(store)
        self.record = record
        self.shape = shape_of_table(record, slots_max)
        self.core = TableCore(
            store.core_engine, record.id, self.shape, store.options.memtable_limit_bytes
        )
        self._codecs: tuple[KeyCodec, ValueCodec] | None = None

    @property
    def store(self) -> StoreEngine:
        """The store that the table is of."""
        store = self._store()
        if store is None:
            raise Error("the store was dropped")
        return store

    @property
    def codecs(self) -> tuple[KeyCodec, ValueCodec]:
        """Its codecs; SchemaError where they are a user's, and were not given yet."""
        return self._codecs or self.agree(None, None)

    def agree(self, key: object, value: object) -> tuple[KeyCodec, ValueCodec]:
        """The codecs, where key and value, if given, are what is stored; SchemaError else."""
        if self._codecs is None or key is not None or value is not None:
            found = stored_codecs(self.record, key, value, self.path)
            self._codecs = self._codecs or found
        return self._codecs

    @property
    def known_codecs(self) -> tuple[KeyCodec | None, ValueCodec | None]:
        """The same; None for those that were not given yet."""
        return self._codecs or codecs_of(self.record)

    @property
    def path(self) -> str:
        """What errors call it."""
        path = self.store.path or ":memory:"
        return f"table {self.record.name!r} of {path}" if self.record.name else path

    # -- sources

    def reader(self, record: SegmentRecord) -> SegmentReader:
        """A reader of a segment file; nothing is touched before its first use."""
        store = self.store
        return SegmentReader(
            record, store.files, segment_name(record.id), self.shape,
            store.manifest.state.store_uuid,
            store.blobs.readers(record) if record.blobs else (),
        )  # fmt: skip

    def stored_version(
        self, records: Iterable[SegmentRecord], reader: Callable[[SegmentRecord], SegmentReader]
    ) -> Version:
        """Its segments in the manifest; the journal comes on top."""
        runs: dict[tuple[int, int], list[SegmentRecord]] = {}
        base = []
        for record in records:
            if record.tier == TIER_NEW:
                runs.setdefault((record.last_sequence, record.run), []).append(record)
            elif record.tier == TIER_BASE:
                base.append(reader(record))
        sources: list[Source] = [
            [reader(record) for record in sorted(runs[key], key=lambda at: at.lower)]
            for key in sorted(runs, reverse=True)
        ]
        return self.version_of(sources, base)

    def version_of(self, newer: Iterable[Source], base: Iterable[SegmentReader]) -> Version:
        """A version of sources, newest first, above the last tier's run."""
        run = sorted(base, key=lambda reader: reader.record.lower)
        return Version(self.shape, [*newer, run] if run else list(newer), bool(run))

    def version_with(self, readers: list[SegmentReader], core: TableCore | None = None) -> Version:
        """The version with loaded segments above all that is there, or in the last tier if made so.

        The writer lock is held, or nobody reads the core (the table's own, where none is given);
        what is live is frozen already, to lie below.
        """
        newer, base = self.split_sources(core)
        if readers[0].record.tier == TIER_BASE:
            return self.version_of(newer, [*base, *readers])
        return self.version_of([readers, *newer], base)

    def split_sources(
        self, core: TableCore | None = None
    ) -> tuple[list[Source], list[SegmentReader]]:
        """The current sources above the last tier, newest first, and the last tier's run."""
        version = (core or self.core).version
        sources = list(version.sources)
        base = sources.pop() if version.last_run_is_base else []
        assert isinstance(base, list)
        return sources, base

    def segments(self) -> list[SegmentReader]:
        """The readers of all its segments; who holds them pins their files."""
        return self.core.version.segments()
