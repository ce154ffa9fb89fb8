"""What to merge and when: keeps the sources few and the last tier tidy.

Runs in the thread whose write found the memtable full, in `compact`, or in the last `close`.  Every
merge reads a run of neighbouring sources that ends at the last tier, and the segments of the last
tier that they overlap; the rest of the last tier stays as it is, so a time-ordered store is never
rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from cesium._engine import WriteGuard
from cesium._memtable import MemtableSnapshot
from cesium._merge import Merge
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.checkpoint import (
    SEGMENT_BYTES,
    SegmentOutput,
    checkpoint_held,
    frozen_memtables,
    overlaps,
    record_bounds,
    record_segments,
    retire,
    run_bounds,
    sizes_of,
)
from cesium.engine import TIER_BASE, StoreEngine
from cesium.events import event
from cesium.origin import MERGE
from cesium.reclaim import COMPACT_DEAD_SHARE, DEAD_SHARE, mostly_dead, reclaimable
from cesium.state import SegmentRecord

FROZEN_MOST = 4  # memtables that wait to be written out: half of the memory limit, at most
NEWER_SOURCES_MOST = 4  # more of them cost every miss a filter each
SMALL_BYTES = SEGMENT_BYTES // 4  # neighbours in the last tier below this are joined,
SMALL_RUN_MOST = 8  # when there are more than so many in a row,
GROUP_MOST = 64  # and no more at once: each that is read holds a descriptor

Progress = Callable[[int], None]


def make_room(engine: StoreEngine, must: bool) -> None:
    """Flushes a full memtable, then merges if the sources became too many.

    must: before a commit to a stalled store, which fails, with nothing done, if this does.
    """
    with engine.maintenance:
        full = engine.core.live_counters()["bytes"] > engine.core.memtable_limit_bytes
        if engine.core_engine.stalled if must else full or engine.core_engine.checkpoint_due:
            tidy(engine, must)  # else another thread was here first


def tidy(engine: StoreEngine, must: bool = False) -> None:
    """Checkpoints, and merges if that is due, after a commit, which does not fail by it.

    Failures are kept (cesium/upkeep.py): the commit is in the journal.  Memtables that cannot be
    written out stay where they are, and the next call tries again; with FROZEN_MOST of them the
    store is stalled: writes fail until there is room.  What leaves the manifest in doubt has
    poisoned the engine.  Nothing is done in a closed store, nor by a signal handler in the midst of
    maintenance.
    """
    inner = engine.core_engine
    with engine.maintenance:
        if inner.closed or engine.maintaining:
            return
        try:
            with engine.exclusive_maintenance("maintenance"):
                checkpoint_held(engine)
                if engine.upkeep.merge_is_due():
                    merge_if_due(engine)
        except Exception as error:
            engine.upkeep.note(engine.path, error)
            frozen = sum(1 for _ in frozen_memtables(engine))
            inner.stalled = inner.poisoned is None and frozen >= FROZEN_MOST
            if must and inner.stalled:
                raise


def checkpoint(engine: StoreEngine) -> None:
    """Brings all commits so far into segments and the manifest; then merges, if that is due.

    A merge that fails is kept (cesium/upkeep.py): the checkpoint stands.
    """
    with engine.exclusive_maintenance("a checkpoint"):
        checkpoint_held(engine)
        if engine.upkeep.merge_is_due():
            try:
                merge_if_due(engine)
            except Exception as error:
                engine.upkeep.note(engine.path, error)


def merge_if_due(engine: StoreEngine) -> None:
    """One merge, if there are too many sources or too many small neighbours."""
    newer = mergeable(engine)
    try:
        if len(newer) > NEWER_SOURCES_MOST:
            merge_into_base(engine, newer)
        for run in small_runs(engine):
            if len(run) > SMALL_RUN_MOST:
                merge_into_base(engine, [], run[:GROUP_MOST])
        for reader in reclaimable(engine):
            merge_part(engine, [], [reader], None)
    except Exception:
        engine.upkeep.merge_failed()
        raise
    engine.upkeep.merged()


def compact(engine: StoreEngine, progress: Progress | None = None) -> None:
    """Brings everything into one run without delete markers; progress gets the rows written."""
    with engine.exclusive_maintenance("compaction"):
        checkpoint_held(engine)
        newer = mergeable(engine)
        if newer:
            merge_into_base(engine, newer, progress=progress)
        before = 0
        while runs := [run for run in small_runs(engine) if len(run) > 1]:
            if sum(map(len, runs)) == before:
                break  # a load lies in between; a later merge joins what is left
            before = sum(map(len, runs))
            merge_into_base(engine, [], runs[0][:GROUP_MOST], progress=progress)
        for reader in reclaimable(engine, COMPACT_DEAD_SHARE):
            merge_part(engine, [], [reader], progress, COMPACT_DEAD_SHARE)
        engine.upkeep.merged()


def mergeable(engine: StoreEngine) -> list[list[SegmentReader]]:
    """The sources, newest first, that lie right above the last tier and are in the manifest."""
    newer, _ = engine.split_sources()
    recorded = engine.manifest.state.segments
    sources: list[list[SegmentReader]] = []
    for source in reversed(newer):
        if isinstance(source, MemtableSnapshot):
            break
        if any(reader.record.id not in recorded for reader in source):
            break
        sources.insert(0, source)
    return sources


def small_runs(engine: StoreEngine) -> list[list[SegmentReader]]:
    """Runs of small neighbours in the last tier that are in the manifest."""
    _, base = engine.split_sources()
    recorded = engine.manifest.state.segments

    def small(reader: SegmentReader) -> bool:
        return reader.record.bytes < SMALL_BYTES and reader.record.id in recorded

    return [list(group) for is_small, group in groupby(base, small) if is_small]


def merge_into_base(
    engine: StoreEngine,
    newer: list[list[SegmentReader]],
    base: list[SegmentReader] | None = None,
    progress: Progress | None = None,
) -> None:
    """Merges sources, newest first, and what they overlap of the last tier, into the last tier.

    base: merge these neighbours in the last tier instead.
    """
    if base is not None:
        merge_part(engine, newer, base, progress)
        return
    _, run = engine.split_sources()
    for part_newer, part_base in parts_of(newer, run):
        # Where a load lies in between, the next checkpoint records it.
        if all(reader.record.id in engine.manifest.state.segments for reader in part_base):
            merge_part(engine, part_newer, part_base, progress)


def parts_of(
    newer: list[list[SegmentReader]], run: list[SegmentReader]
) -> list[tuple[list[list[SegmentReader]], list[SegmentReader]]]:
    """The sources, with the segments of the last tier that they overlap, in parts that lie apart.

    A part's intervals hang together, so its keys surround nothing that is in no part: what is made
    of it fits into the last tier.
    """
    spans = [(run_bounds(source), place) for place, source in enumerate(newer)]
    spans += [(record_bounds(reader.record), len(newer) + at) for at, reader in enumerate(run)]
    parts: list[list[int]] = []
    part_upper: bytes | None = b""
    for (lower, upper), place in sorted(spans, key=lambda span: span[0][0]):
        if not parts or (part_upper is not None and lower > part_upper):
            parts.append([])
            part_upper = upper
        parts[-1].append(place)
        part_upper = None if part_upper is None or upper is None else max(part_upper, upper)
    return [
        (
            [newer[place] for place in sorted(part) if place < len(newer)],
            [run[place - len(newer)] for place in sorted(part) if place >= len(newer)],
        )
        for part in parts
        if min(part) < len(newer)
    ]


def merge_part(
    engine: StoreEngine,
    newer: list[list[SegmentReader]],
    base: list[SegmentReader],
    progress: Progress | None,
    dead_share: float = DEAD_SHARE,
) -> None:
    """One merge into the last tier; nothing if a load lies between the output's keys by then."""
    inputs = [reader for source in [*newer, base] for reader in source]
    read = sizes_of(reader.record for reader in inputs)
    with event(
        engine, "merge", segments_read=read["segments_written"], bytes_read=read["bytes_written"]
    ) as facts:
        facts.update(sizes_of(write_merge(engine, newer, base, inputs, progress, dead_share)))


def write_merge(
    engine: StoreEngine,
    newer: list[list[SegmentReader]],
    base: list[SegmentReader],
    inputs: list[SegmentReader],
    progress: Progress | None,
    dead_share: float,
) -> list[SegmentRecord]:
    """The same; returns what was made of the inputs."""
    output = SegmentOutput(
        engine,
        TIER_BASE,
        min(reader.record.first_sequence for reader in inputs),
        max(reader.record.last_sequence for reader in inputs),
        MERGE,
        inputs,
    )
    output.moved = mostly_dead(engine, dead_share)
    sources = [*newer, base] if base else newer
    output.write_merge(
        Merge(Version(engine.shape, sources, bool(base)), False),
        SEGMENT_BYTES,
        markers=False,
        filter_keys=0,
        progress=progress,
    )
    merged = {reader.record.id for reader in inputs}
    with output.publishing() as readers, WriteGuard(engine.core_engine):
        above, below = engine.split_sources()
        above = [
            source
            for source in above
            if isinstance(source, MemtableSnapshot) or source[0].record.id not in merged
        ]
        below = [reader for reader in below if reader.record.id not in merged]
        fits = not any(
            overlaps(record_bounds(reader.record), record_bounds(other.record))
            for reader in readers
            for other in below
        )
        if fits:
            engine.core.publish(engine.version_of(above, [*below, *readers]))
    if not fits:
        output.discard()
        return []
    retire(engine, inputs)
    engine.upkeep.unrecorded.update(reader.record.id for reader in readers)
    record_segments(engine, set(engine.manifest.state.segments) - merged, None)
    return output.records
