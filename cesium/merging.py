"""Merges: reads a stretch of neighbouring sources and puts what they make in their place.

The sources are pinned by a Version, files are written and synced without any lock but `merging`,
and only the end of a merge takes `maintenance`: it swaps the sources by identity, so that what was
flushed or loaded meanwhile stays, and writes the manifest.  Readers of older versions go on with
what they pinned.

A merge into the last tier takes what it overlaps there, in parts that lie apart, each a merge of
its own; the rest of the last tier stays as it is, so a time-ordered store is never rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

from cesium._engine import WriteGuard
from cesium._memtable import MemtableSnapshot
from cesium._merge import Merge
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.checkpoint import record_segments, retire
from cesium.engine import StoreEngine
from cesium.events import Event, event
from cesium.hidden import hidden_rows
from cesium.origin import MERGE
from cesium.overlap import overlaps, record_bounds
from cesium.reclaim import DEAD_SHARE, mostly_dead, reclaimable
from cesium.segment_output import SEGMENT_BYTES, SegmentOutput, sizes_of
from cesium.table_engine import TIER_BASE, TIER_NEW, Source, TableEngine
from cesium.tiers import Run, choose

SMALL_BYTES = SEGMENT_BYTES // 4  # neighbours in the last tier below this are joined,
SMALL_RUN_MOST = 8  # when there are more than so many in a row,
GROUP_MOST = 64  # and no more at once: each that is read holds a descriptor

Progress = Callable[[int], None]
Sources = list[list[SegmentReader]]


def mergeable(table: TableEngine) -> Sources:
    """The sources, newest first, that lie right above the last tier and are in the manifest."""
    newer, _ = table.split_sources()
    recorded = table.store.manifest.state.segments
    sources: Sources = []
    for source in reversed(newer):
        if isinstance(source, MemtableSnapshot):
            break
        if any(reader.record.id not in recorded for reader in source):
            break
        sources.insert(0, source)
    return sources


def describe(table: TableEngine, sources: Sources) -> tuple[list[Run], int, int]:
    """Sources as the policy sees them (cesium/tiers.py), the last tier's bytes, and all rows."""
    _, base = table.split_sources()
    runs = [
        Run(
            sum(reader.record.bytes for reader in source),
            2 * sum(reader.record.delete_markers for reader in source)
            + sum(hidden_rows(reader, [*sources[place + 1 :], base]) for reader in source),
        )
        for place, source in enumerate(sources)
    ]
    readers = [*base, *(reader for source in sources for reader in source)]
    rows = sum(reader.record.rows for reader in readers)
    return runs, sum(reader.record.bytes for reader in base), rows


def small_runs(table: TableEngine) -> Sources:
    """Runs of small neighbours in the last tier that are in the manifest."""
    _, base = table.split_sources()
    recorded = table.store.manifest.state.segments

    def small(reader: SegmentReader) -> bool:
        return reader.record.bytes < SMALL_BYTES and reader.record.id in recorded

    return [list(group) for is_small, group in groupby(base, small) if is_small]


@dataclass(frozen=True, slots=True)
class Due:
    """A merge that is due: of these sources of a table, into the last tier or into one run above.

    Where there are none: of these neighbours in the last tier, or of one segment there whose blob
    files are mostly dead.
    """

    table: TableEngine
    sources: Sources
    into_base: bool
    neighbours: list[SegmentReader]
    bytes_read: int


def due(engine: StoreEngine) -> Due | None:
    """The merge that is wanted next, of the table with most sources first."""
    tables = list(engine.tables.values())
    if len(tables) > 1:
        tables.sort(key=lambda table: -len(table.core.version.sources))
    return next((found for table in tables if (found := due_of(table)) is not None), None)


def due_of(table: TableEngine) -> Due | None:
    """The merge that the policy wants next (cesium/tiers.py); None when the tiers are in order."""
    with table.store.maintained():
        sources = mergeable(table)
        runs, base_bytes, rows = describe(table, sources)
        choice = choose(runs, base_bytes, rows)
        small = [run for run in small_runs(table) if len(run) > SMALL_RUN_MOST]
    if choice is not None:
        read = sum(run.bytes for run in runs[choice.first : choice.end])
        read += base_bytes if choice.into_base else 0
        return Due(table, sources[choice.first : choice.end], choice.into_base, [], read)
    for group in small:
        group = group[:GROUP_MOST]
        size = sum(reader.record.bytes for reader in group)
        if 2 * -(-size // SEGMENT_BYTES) <= len(group):
            return Due(table, [], True, group, size)
    if holders := reclaimable(table):
        return Due(table, [], True, holders[:1], holders[0].record.bytes)
    return None


def merge_chosen(found: Due) -> bool:
    """Does it; False when nothing could be done yet."""
    table = found.table
    if found.neighbours:
        return merge_part(table, [], found.neighbours)
    if found.into_base:
        return merge_into_base(table, found.sources)
    return merge_into_run(table, found.sources)


def merge_into_base(table: TableEngine, newer: Sources, progress: Progress | None = None) -> bool:
    """Merges sources, newest first, and what they overlap of the last tier, into the last tier.

    They are the oldest above it.  False when nothing could be done yet.
    """
    _, run = table.split_sources()
    merged = False
    for part_newer, part_base in parts_of(newer, run):
        # Where a load lies in between, the next checkpoint records it.
        if all(reader.record.id in table.store.manifest.state.segments for reader in part_base):
            merged |= merge_part(table, part_newer, part_base, progress)
    return merged


def parts_of(newer: Sources, run: list[SegmentReader]) -> list[tuple[Sources, list[SegmentReader]]]:
    """The sources, with the segments of the last tier that they overlap, in parts that lie apart.

    A part's intervals hang together, so its keys surround nothing that is in no part: what is made
    of it fits into the last tier.  A source's segments may go to several parts.
    """
    spans = [
        (record_bounds(reader.record), place, reader)
        for place, source in enumerate([*newer, run])
        for reader in source
    ]
    parts: list[list[tuple[int, SegmentReader]]] = []
    part_upper: bytes | None = b""
    for (lower, upper), place, reader in sorted(spans, key=lambda span: span[0][0]):
        if not parts or (part_upper is not None and lower > part_upper):
            parts.append([])
            part_upper = upper
        parts[-1].append((place, reader))
        part_upper = None if part_upper is None or upper is None else max(part_upper, upper)
    return [
        (
            [
                source
                for index in range(len(newer))
                if (source := [reader for place, reader in part if place == index])
            ],
            [reader for place, reader in part if place == len(newer)],
        )
        for part in parts
        if any(place < len(newer) for place, _ in part)
    ]


def output_of(table: TableEngine, tier: int, inputs: list[SegmentReader]) -> SegmentOutput:
    """The output of a merge of these segments."""
    output = SegmentOutput(
        table,
        tier,
        min(reader.record.first_sequence for reader in inputs),
        max(reader.record.last_sequence for reader in inputs),
        MERGE,
        inputs,
    )
    output.step = table.store.step
    return output


def merge_part(
    table: TableEngine,
    newer: Sources,
    base: list[SegmentReader],
    progress: Progress | None = None,
    dead_share: float = DEAD_SHARE,
) -> bool:
    """One merge into the last tier; False if a load lies between the output's keys by then."""
    inputs = [reader for source in [*newer, base] for reader in source]
    if not base and len(inputs) == 1 and movable(inputs[0]):
        return move_down(table, inputs[0])
    with merging(table, inputs) as facts:
        output = output_of(table, TIER_BASE, inputs)
        output.moved = mostly_dead(table, dead_share)
        sources = [*newer, base] if base else newer
        output.write_merge(
            Merge(Version(table.shape, sources, bool(base)), False),
            SEGMENT_BYTES,
            markers=False,
            filter_keys=0,
            progress=progress,
        )
        done = swap(table, output, inputs, None)
        facts.update(sizes_of(output.records))
    return done


def merging(table: TableEngine, inputs: list[SegmentReader]) -> Event:
    """The event of a merge."""
    read = sum(reader.record.bytes for reader in inputs)
    return event(table.store, "merge", segments_read=len(inputs), bytes_read=read)


def movable(reader: SegmentReader) -> bool:
    """Whether a segment that overlaps nothing below may stand in the last tier as it is."""
    return not reader.record.markers and not reader.record.delete_markers


def move_down(table: TableEngine, reader: SegmentReader) -> bool:
    """Puts a segment that overlaps nothing below into the last tier: by a manifest edit alone."""
    with table.store.maintained():
        with WriteGuard(table.store.core_engine):
            above, below = table.split_sources()
            bounds = record_bounds(reader.record)
            if any(overlaps(bounds, record_bounds(other.record)) for other in below):
                return False  # a load came in between
            reader.record = replace(reader.record, tier=TIER_BASE)
            table.core.publish(
                table.version_of(without(above, {reader.record.id}), [*below, reader])
            )
        record_segments(table.store, set(table.store.manifest.state.segments), None)
    return True


def merge_into_run(table: TableEngine, sources: Sources) -> bool:
    """Merges neighbouring sources into one, which takes their place above the last tier.

    Range-deletes that older sources still need become a source of their own below it, without rows:
    what they hide in the merged ones is gone, and a run of several segments has none.  Its
    segments end where some of the last tier begin, so that it goes down in parts, later.
    """
    inputs = [reader for source in sources for reader in source]
    _, base = table.split_sources()
    rows = sum(reader.record.rows for reader in inputs)
    size = sum(reader.record.bytes for reader in inputs)
    with merging(table, inputs) as facts:
        output = output_of(table, TIER_NEW, inputs)
        output.moved = mostly_dead(table)
        merge = Merge(Version(table.shape, sources, False), True)
        if any(reader.record.markers for reader in inputs):
            output.write_markers(merge)
        output.write_merge(
            merge,
            SEGMENT_BYTES,
            markers=False,
            filter_keys=max(1, min(rows, rows * SEGMENT_BYTES // max(size, 1))),
            cuts=[reader.record.lower for reader in base],
        )
        done = swap(table, output, inputs, sources[0])
        facts.update(sizes_of(output.records))
    return done


def swap(
    table: TableEngine,
    output: SegmentOutput,
    inputs: list[SegmentReader],
    top: list[SegmentReader] | None,
) -> bool:
    """Puts a merge's output in the place of its inputs, and says so in the manifest.

    top: the newest of the sources merged into one above the last tier, whose place it takes; None
    for a merge into the last tier, which is undone where a load lies between the output's keys.
    """
    merged = {reader.record.id for reader in inputs}
    with table.store.maintained():
        with output.publishing() as readers, WriteGuard(table.store.core_engine):
            above, below = table.split_sources()
            fits = True
            if top is not None:
                place = next(index for index, source in enumerate(above) if source is top)
                marks = [[reader] for reader in readers if reader.record.markers]
                run = [reader for reader in readers if not reader.record.markers]
                above[place:place] = [run, *marks] if run else marks
            else:
                below = [reader for reader in below if reader.record.id not in merged]
                fits = not any(
                    overlaps(record_bounds(reader.record), record_bounds(other.record))
                    for reader in readers
                    for other in below
                )
                below += readers
            if fits:
                table.core.publish(table.version_of(without(above, merged), below))
        if not fits:
            output.discard()
            return False
        retire(table.store, inputs)
        table.store.upkeep.unrecorded.update(reader.record.id for reader in readers)
        record_segments(table.store, set(table.store.manifest.state.segments) - merged, None)
    return True


def without(sources: list[Source], gone: set[int]) -> list[Source]:
    """Sources without some segments, and without those that nothing is left of."""
    kept: list[Source] = []
    for source in sources:
        if isinstance(source, MemtableSnapshot) or gone.isdisjoint(
            reader.record.id for reader in source
        ):
            kept.append(source)
        elif left := [reader for reader in source if reader.record.id not in gone]:
            kept.append(left)
    return kept
