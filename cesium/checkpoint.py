"""Flush and checkpoint: from memtables to segments, from the journal to the manifest.

`checkpoint` and `close` take `engine.maintenance`; the other functions are called with it held.
Files are written and synced first, then published to readers, then recorded in the manifest, and
only then is what they replace unlinked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from cesium._engine import WriteGuard
from cesium._memtable import MemtableSnapshot
from cesium._merge import Merge
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.budget import adapt
from cesium.engine import StoreEngine
from cesium.errors import StorageFullError
from cesium.events import event
from cesium.origin import FLUSH
from cesium.overlap import overlaps, source_bounds
from cesium.reclaim import let_go
from cesium.segment_output import SEGMENT_BYTES, SegmentOutput, sizes_of
from cesium.state import Edit
from cesium.table_engine import TIER_BASE, TIER_NEW, Source, TableEngine


@dataclass(slots=True)
class Cut:
    """The memtables that were frozen at one commit, of all tables that had any rows.

    sequence: the last commit that they hold.
    """

    sequence: int
    memtables: list[tuple[TableEngine, MemtableSnapshot]]


def frozen_cuts(engine: StoreEngine) -> list[Cut]:
    """What is frozen, oldest first."""
    cuts: dict[int, Cut] = {}
    for table in engine.tables.values():
        for source in table.core.version.sources:
            if isinstance(source, MemtableSnapshot):
                cut = cuts.setdefault(source.last_sequence, Cut(source.last_sequence, []))
                cut.memtables.append((table, source))
    return [cuts[sequence] for sequence in sorted(cuts)]


def commits_before(engine: StoreEngine, cut: Cut) -> int:
    """The last commit before those of the oldest cut: of a load that froze it, perhaps.

    Of all tables: with that a lost manifest can be made again, which finds the commits that are
    loads by what no flush has.
    """
    flushed = engine.manifest.state.flushed_sequence
    lasts = (reader.record.last_sequence for reader in engine.segments())
    return max([flushed, *(sequence for sequence in lasts if sequence < cut.sequence)])


def flush(engine: StoreEngine, cut: Cut) -> None:
    """Writes the memtables of the oldest cut out, puts their segments in their places."""
    first = commits_before(engine, cut)
    outputs: list[SegmentOutput] = []
    try:
        for table, snapshot in cut.memtables:
            memory_bytes = snapshot.memtable.counters()["bytes"]
            with event(engine, "flush", rows=snapshot.entries, memory_bytes=memory_bytes) as facts:
                outputs.append(written(table, snapshot, first))
                facts.update(sizes_of(outputs[-1].records))
        engine.files.sync_directory()
    except BaseException:
        for output in outputs:
            output.discard()
        raise
    try:
        for output, (_, snapshot) in zip(outputs, cut.memtables, strict=True):
            put_in_place(output, snapshot)
    except BaseException:
        for output in outputs:
            output.discard_unseen()
        raise
    adapt(engine)  # what the memtables held is free again


def written(table: TableEngine, snapshot: MemtableSnapshot, first: int) -> SegmentOutput:
    """A frozen memtable as segments, durable but for their names.

    first: the last commit before its own.
    """
    bounds = source_bounds(snapshot)
    newer, base = table.split_sources()
    place = next(index for index, source in enumerate(newer) if source is snapshot)
    older: list[Source] = [*newer[place + 1 :], *([reader] for reader in base)]
    overlapping = any(overlaps(bounds, source_bounds(source)) for source in older)
    tier = TIER_NEW if overlapping else TIER_BASE
    # Its own last sequence, not today's: a load that attached since is newer.
    output = SegmentOutput(table, tier, first, snapshot.last_sequence, FLUSH)
    output.write_merge(
        Merge(Version(table.shape, [snapshot], False), overlapping),
        None if overlapping else SEGMENT_BYTES,
        markers=overlapping,
        filter_keys=snapshot.entries if overlapping else 0,
    )
    return output


def put_in_place(output: SegmentOutput, snapshot: MemtableSnapshot) -> None:
    """Shows readers the segments instead of the memtable that they were made of."""
    table = output.table
    engine = table.store
    with output.publishing(synced=True) as readers, WriteGuard(engine.core_engine):
        newer, base = table.split_sources()
        place = next(index for index, source in enumerate(newer) if source is snapshot)
        if output.tier == TIER_NEW:
            newer[place : place + 1] = [readers] if readers else []
        else:
            del newer[place]
            base = [*base, *readers]
        table.core.publish(table.version_of(newer, base))
        engine.core_engine.stalled = False
    engine.room.set()


def checkpoint(engine: StoreEngine) -> None:
    """Brings all commits so far into segments and the manifest, and lets go of their journal.

    Returns when that is on stable storage.  Commits of other threads go on meanwhile.
    """
    with engine.exclusive_maintenance("a checkpoint"):
        checkpoint_held(engine)


def checkpoint_held(engine: StoreEngine) -> None:
    """The same, with `engine.maintenance` held already."""
    with WriteGuard(engine.core_engine):
        engine.core_engine.checkpoint_due = False
        engine.freeze()
        sequence = engine.core_engine.sequence
        known = {reader.record.id for reader in engine.segments()}
    cuts = frozen_cuts(engine)
    state = engine.manifest.state
    if not cuts and sequence == state.flushed_sequence and known == set(state.segments):
        return
    memtables = sum(len(cut.memtables) for cut in cuts)
    with event(engine, "checkpoint", sequence=sequence, memtables=memtables):
        flush_through(engine, cuts, sequence)


def flush_through(engine: StoreEngine, cuts: list[Cut], sequence: int) -> None:
    """Brings the oldest memtables and all else up to `sequence` into segments and the manifest.

    cuts: oldest first; sequence: the last commit that the last of them holds, or a later one that
    is in segments already.
    """
    for cut in cuts:
        flush(engine, cut)
    engine.core_engine.stalled = False
    # A load that attached since is in the journal still, and is replayed from there.
    known = {
        reader.record.id for reader in engine.segments() if reader.record.last_sequence <= sequence
    }
    record_segments(engine, known, sequence)
    engine.upkeep.flushed()
    with WriteGuard(engine.core_engine):
        # None first: interrupted in the midst, the next commit goes to a new file, and not to one
        # that was dropped.
        engine.core_engine.journal = None
        engine.journal.detach_through(
            sequence, including_current=engine.core_engine.sequence == sequence
        )
        engine.core_engine.journal = engine.journal.writer
    engine.journal.remove_detached()


def record_segments(engine: StoreEngine, known: set[int], sequence: int | None) -> None:
    """Makes the manifest say which segments are live; those that it no longer names go.

    Merged ones that an earlier try could not record are always known.

    known: ids that may be recorded; a load that attached since then is in the journal still, above
    `sequence`, the last one flushed (None: as it was).
    """
    state = engine.manifest.state
    unrecorded = engine.upkeep.unrecorded
    live = {
        reader.record.id: reader
        for reader in engine.segments()
        if (reader.record.id in known or reader.record.id in unrecorded)
        and reader.record.table in state.tables  # not interrupted in the midst of being dropped
    }
    gone = tuple(number for number in state.segments if number not in live)
    put = tuple(
        reader.record
        for number, reader in live.items()
        if state.segments.get(number) != reader.record
    )
    engine.append_edit(
        Edit(
            remove_segments=gone,
            put_segments=put,
            sequence=sequence,
            flushed_sequence=sequence,
        )
    )
    unrecorded.clear()
    let_go(engine, [state.segments[number] for number in gone])


def retire(engine: StoreEngine, readers: list[SegmentReader]) -> None:
    """Remembers merged-away segments until the manifest no longer names them."""
    for reader in readers:
        engine.retired[reader.record.id] = reader


def close(engine: StoreEngine, merge: Callable[[StoreEngine], None]) -> None:
    """Checkpoints a store that was written to, and ends the engine, whatever the checkpoint met.

    merge: what keeps the sources few; it comes after a checkpoint that wrote, for every closing may
    add a small segment, and after one that failed, so that the failure is told.
    """
    with engine.exclusive_merging("closing"), engine.maintained():
        inner = engine.core_engine
        if inner.closed:
            return
        try:
            keeps = engine.writable and not engine.in_memory
            if keeps and inner.poisoned is None:
                before = engine.manifest.state.generation
                checkpoint_held(engine)
                with contextlib.suppress(StorageFullError):
                    if engine.manifest.state.generation != before or engine.upkeep.failure:
                        merge(engine)
                    if engine.manifest.grown and not engine.journal.files:
                        # No journal says how much of the manifest there must be; a file that is
                        # one snapshot cannot lose its last edits unseen.
                        engine.manifest.rewrite()
        finally:
            engine.release()
