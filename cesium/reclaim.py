"""Which files may go, and what has to be merged so that the space of blob files comes back.

A segment that was merged away goes, after its last pin, unless a named version still has it; then
it goes when the last such version is dropped.  A blob file goes with the last segment that refers
to it.

A segment's record says how many bytes it refers to in each blob file, so what is live in a file is
the sum over the live segments, and nothing is read to know it.  A merge writes anew the values that
it meets in a file that is mostly dead; when no segment refers to the file any more, it goes.  The
new pointers and the new values become visible with the merge, in one edit of the manifest.  What a
named version has is left alone: that would free nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from cesium._segment import SegmentReader
from cesium.directory import segment_name
from cesium.engine import StoreEngine
from cesium.named import named_records, tables_of
from cesium.records import NamedVersion, SegmentRecord
from cesium.table_engine import TableEngine

# Dead bytes are at most as many as live ones, and a byte that is written anew has freed one at
# least: values are written twice at most, for each time that they are overwritten.
DEAD_SHARE = 0.5
COMPACT_DEAD_SHARE = 0.1  # what a call of `compact` leaves


def blob_totals(records: Iterable[SegmentRecord]) -> dict[int, tuple[int, int, int]]:
    """By blob file: its bytes, those of all values in it, of those that segments point to."""
    totals: dict[int, tuple[int, int, int]] = {}
    for record in records:
        for share in record.blobs:
            live = totals.get(share.id, (0, 0, 0))[2] + share.live_bytes
            totals[share.id] = share.file_bytes, share.value_bytes, live
    return totals


def mostly_dead(table: TableEngine, dead_share: float = DEAD_SHARE) -> frozenset[int]:
    """The blob files of which more than that share is dead."""
    totals = blob_totals(reader.record for reader in table.segments())
    dead = {
        number
        for number, (_, values, live) in totals.items()
        if values - live > values * dead_share
    }
    if dead:  # named versions may have many segments, and this is asked after every flush
        for record in named_records(table.store.manifest.state):
            dead.difference_update(share.id for share in record.blobs)
    return frozenset(dead)


def kept_readers(engine: StoreEngine) -> list[SegmentReader]:
    """Of the segments that named versions alone have; holding them pins the files."""
    with engine.maintained():
        live = {reader.record.id for reader in engine.segments()}
        tables = tables_of(engine.manifest.state)
        readers = {}
        for record in named_records(engine.manifest.state):
            if record.id not in live and record.id not in readers:
                known = engine.kept.get(record.id) or engine.retired.get(record.id)
                if known is None:
                    # Of a table that was dropped since, perhaps.
                    table = engine.tables.get(record.table)
                    table = table or engine.table_engine(tables[record.table])
                    known = table.reader(record)
                readers[record.id] = engine.kept[record.id] = known
        return list(readers.values())


def let_go(engine: StoreEngine, removed: Iterable[SegmentRecord]) -> None:
    """Has segments that the manifest does not name any more go, with the blob files only they use.

    Each is unlinked after its last pin, or kept while a named version has it.
    """
    removed = list(removed)
    kept = {record.id for record in named_records(engine.manifest.state)}
    for record in removed:
        reader = engine.retired.pop(record.id, None)
        if reader is not None and record.id in kept:
            engine.kept[record.id] = reader
        elif reader is not None:
            reader.doomed = True
    _drop_blobs(engine, removed)


def let_go_of_version(engine: StoreEngine, version: NamedVersion) -> None:
    """The same for the segments of a version that has lost its name."""
    state = engine.manifest.state
    needed = state.segments.keys() | {record.id for record in named_records(state)}
    removed = [record for record in version.segments.values() if record.id not in needed]
    for record in removed:
        reader = engine.kept.pop(record.id, None)
        if reader is None:
            engine.files.remove(segment_name(record.id))
        else:
            reader.doomed = True
    _drop_blobs(engine, removed)


def _drop_blobs(engine: StoreEngine, removed: list[SegmentRecord]) -> None:
    if not any(record.blobs for record in removed):
        return
    state = engine.manifest.state
    attached = [reader.record for reader in engine.segments()]
    engine.blobs.drop(removed, [*state.segments.values(), *named_records(state), *attached])


def reclaimable(table: TableEngine, dead_share: float = DEAD_SHARE) -> list[SegmentReader]:
    """The segments in the last tier, recorded in the manifest, that hold such files' live values.

    Merging each by itself gives the space back.
    """
    dead = mostly_dead(table, dead_share)
    if not dead:
        return []
    _, base = table.split_sources()
    recorded = table.store.manifest.state.segments
    return [
        reader
        for reader in base
        if reader.record.id in recorded and any(share.id in dead for share in reader.record.blobs)
    ]
