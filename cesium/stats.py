"""What a store is made of, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cesium._memtable import MemtableSnapshot
from cesium._ranges import View
from cesium.durability import durable_sequence
from cesium.engine import StoreEngine
from cesium.reclaim import blob_totals


@dataclass(frozen=True, slots=True)
class Stats:
    """The store at one moment.  Bytes are those of files and of memory held by memtables.

    estimated_rows: entries of all sources, delete markers taken off; constant time.
    blob_dead_bytes: of values in blob files that no segment points to.
    journal_dropped_bytes: what opening found behind the last whole commit of the journal and
    ignored, because nothing showed that it had been synced: 0 after a clean close.
    maintenance_failure: why the last flush or merge after a write failed, until one succeeds; the
    commits are kept all the same.
    """

    estimated_rows: int
    sequence: int
    durable_sequence: int
    segments: int
    segment_bytes: int
    blob_files: int
    blob_bytes: int
    blob_dead_bytes: int
    newer_sources: int
    base_segments: int
    frozen_memtables: int
    memtable_entries: int
    memtable_bytes: int
    journal_files: int
    journal_bytes: int
    journal_dropped_bytes: int
    write_waits: int
    maintenance_failure: str | None

    def as_dict(self) -> dict[str, Any]:
        """The same as a dict."""
        return asdict(self)


def stats(engine: StoreEngine) -> Stats:
    """Counts what is there now, without reading any page."""
    newer, base = engine.split_sources()
    frozen = sum(isinstance(source, MemtableSnapshot) for source in newer)
    readers = engine.core.version.segments()
    live = engine.core.live_counters()
    blobs = blob_totals(reader.record for reader in readers)
    journals = engine.journal.files
    return Stats(
        estimated_rows=View(engine.core).estimated_rows(),
        sequence=engine.core_engine.sequence,
        durable_sequence=durable_sequence(engine),
        segments=len(readers),
        segment_bytes=sum(reader.record.bytes for reader in readers),
        blob_files=len(blobs),
        blob_bytes=sum(size for size, _, _ in blobs.values()),
        blob_dead_bytes=sum(values - live for _, values, live in blobs.values()),
        newer_sources=len(newer),
        base_segments=len(base),
        frozen_memtables=frozen,
        memtable_entries=live["entries"],
        memtable_bytes=live["bytes"],
        journal_files=len(journals),
        journal_bytes=sum(file.bytes for file in journals),
        journal_dropped_bytes=engine.journal.dropped_bytes,
        write_waits=engine.core_engine.waits,
        maintenance_failure=engine.upkeep.failure,
    )
