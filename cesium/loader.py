"""Bulk loads: arrays in any order to segments, made visible by one attach frame.

Rows are encoded and sorted in memory, in runs within the memory limit; several runs are written as
segments and merged.  Segments are written and synced first; then, under the writer lock, the
memtable is frozen and a frame that names the segments is appended: that frame is the commit.  A
load that overlaps nothing goes to the last tier at once, else above all that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cesium._builder import SegmentBuilder
from cesium._core import Commit
from cesium._engine import WriteGuard
from cesium._journal import JournalWriter
from cesium._keys import EncodedKeys
from cesium._load import LoadRows, keys_part, values_part
from cesium._merge import Merge
from cesium._segment import SegmentReader
from cesium._values import EncodedValues
from cesium._version import Version
from cesium.checkpoint import SEGMENT_BYTES, SegmentOutput, checkpoint, sizes_of
from cesium.durability import sync
from cesium.engine import TIER_BASE, TIER_NEW, Source, StoreEngine
from cesium.events import Fact, event
from cesium.maintenance import tidy
from cesium.origin import LOAD, RUN
from cesium.overlap import Bounds, overlaps, source_bounds
from cesium.state import SegmentRecord, attach_payload

SORTED_ROW_BYTES = 16  # what sorting takes for each row
RUN_ROWS_LEAST = 1 << 16  # that are sorted at once, however small the memory limit
PART_ROWS_LEAST = 1 << 16  # that are worth a thread
Progress = Callable[[int], None]


def load(
    engine: StoreEngine,
    keys: EncodedKeys,
    values: EncodedValues,
    threads: int,
    durability: str,
    progress: Progress | None = None,
) -> Commit:
    """Loads one batch as one commit; progress is called with the rows written so far, by steps."""
    counters = engine.core_engine.counters
    with event(engine, "load", rows=keys.count) as facts:
        order_bytes = keys.count * SORTED_ROW_BYTES
        counters.hold(order_bytes)
        try:
            commit = load_rows(engine, keys, values, threads, durability, progress, facts)
        finally:
            counters.hold(-order_bytes)
    counters.add("loaded_bytes", encoded_bytes(keys, values))
    settle(engine)
    return commit


def load_rows(
    engine: StoreEngine,
    keys: EncodedKeys,
    values: EncodedValues,
    threads: int,
    durability: str,
    progress: Progress | None,
    facts: dict[str, Fact],
) -> Commit:
    """The same, without the maintenance that may follow."""
    inner = engine.core_engine
    if keys.count == 0:
        sync(engine)  # for what came before
        return Commit(inner.sequence, durability, 0)
    with WriteGuard(inner):
        pass  # closed, read-only and poisoned stores refuse before any work is done
    runs = sorted_runs(engine, keys, values, threads)
    bounds = load_bounds(engine, runs)
    free = not overlaps_store(engine, bounds)
    if len(runs) == 1:
        output = write_run(engine, runs[0], TIER_BASE if free else TIER_NEW, threads, progress)
    else:
        output = merge_runs(engine, runs, TIER_BASE if free else TIER_NEW, threads, progress)
    try:
        engine.files.sync_directory()
        if inner.unjournaled:
            checkpoint(engine)  # where a full drive is met, if so, with nothing of the load visible
        records, journal, position = attach(engine, output, bounds)
        facts.update(sizes_of(records), sequence=records[0].last_sequence)
    except BaseException:
        if not output.committed:
            output.discard()
        raise
    inner.wait(journal, position)
    if inner.unjournaled:
        checkpoint(engine)
    sequence = records[0].last_sequence
    inner.durable_sequence = max(inner.durable_sequence, sequence)
    try:
        read_ahead(engine, records, threads)
    except Exception as error:  # the load is committed; reading tells of what cannot be read
        engine.upkeep.note(engine.path, error)
    return Commit(sequence, durability, keys.count)


def encoded_bytes(keys: EncodedKeys, values: EncodedValues) -> int:
    """What keys and values take, as encoded: 8 bytes a fixed key."""
    arrays = (keys.heads, keys.data, values.rows, values.data)
    return sum(array.nbytes for array in arrays if array is not None)


def sorted_runs(
    engine: StoreEngine, keys: EncodedKeys, values: EncodedValues, threads: int
) -> list[LoadRows]:
    """The batch in runs that sort within half of the memory limit, in the order given."""
    most_rows = max(engine.options.memory_limit_bytes // 2 // SORTED_ROW_BYTES, RUN_ROWS_LEAST)
    if keys.count <= most_rows:
        return [LoadRows(engine.shape, keys, values, threads)]
    return [
        LoadRows(
            engine.shape, keys_part(keys, first, first + most_rows),
            values_part(values, first, first + most_rows), threads,
        )
        for first in range(0, keys.count, most_rows)
    ]  # fmt: skip


def load_bounds(engine: StoreEngine, runs: list[LoadRows]) -> Bounds:
    """The smallest and the largest key of a load, as bytes."""

    def as_bytes(key: int | bytes) -> bytes:
        return key.to_bytes(8, "big") if isinstance(key, int) else key

    return (
        min(as_bytes(run.key(0)) for run in runs),
        max(as_bytes(run.key(run.count - 1)) for run in runs),
    )


def overlaps_store(engine: StoreEngine, bounds: Bounds) -> bool:
    """Whether anything in the store shares a key's place with the load."""
    live = engine.core.pin_live()
    newer, base = engine.split_sources()
    sources: list[Source] = [*newer, *([reader] for reader in base)]
    if live is not None:
        sources.append(live)
    return any(overlaps(bounds, source_bounds(source)) for source in sources)


def write_run(
    engine: StoreEngine,
    rows: LoadRows,
    tier: int,
    threads: int,
    progress: Progress | None,
    made: str = LOAD,
) -> SegmentOutput:
    """One sorted run as segments; several threads write a part of it each."""
    output = SegmentOutput(engine, tier, engine.core_engine.sequence, 0, made)
    parts = max(1, min(threads, rows.count // PART_ROWS_LEAST))
    edges = [rows.count * part // parts for part in range(parts + 1)]

    def write_part(part: int) -> None:
        place, end = edges[part], edges[part + 1]
        while place < end:
            builder: SegmentBuilder = output.builder(0 if tier == TIER_BASE else end - place)
            try:
                before = place
                place = rows.write(builder, place, end, SEGMENT_BYTES)
                output.finish(builder)
            except BaseException:
                builder.abort()
                raise
            if progress is not None:
                progress(place - before)

    try:
        if parts == 1:
            write_part(0)
        else:
            from concurrent.futures import ThreadPoolExecutor  # not at import: 10 ms

            with ThreadPoolExecutor(parts, "cesium-load") as pool:
                list(pool.map(write_part, range(parts)))
    except BaseException:
        output.discard()
        raise
    output.records.sort(key=lambda record: record.lower)
    return output


def merge_runs(
    engine: StoreEngine, runs: list[LoadRows], tier: int, threads: int, progress: Progress | None
) -> SegmentOutput:
    """Several sorted runs by way of segments of their own; later runs win."""
    parts: list[SegmentOutput] = []
    output = SegmentOutput(engine, tier, engine.core_engine.sequence, 0, LOAD)
    try:
        for run in runs:
            parts.append(write_run(engine, run, TIER_BASE, threads, None, RUN))
            written = sum(record.bytes for record in parts[-1].records)
            engine.core_engine.counters.add("load_bytes", written)
        for part in parts:
            output.known_blobs |= part.known_blobs
        sources = [[engine.reader(record) for record in part.records] for part in reversed(parts)]
        output.write_merge(
            Merge(Version(engine.shape, sources, False), False),
            SEGMENT_BYTES,
            markers=False,
            filter_keys=0 if tier == TIER_BASE else SEGMENT_BYTES // 16,
            progress=progress,
        )
        # What the parts moved into blob files stays there: the output has the pointers.
        output.adopt(parts)
        return output
    finally:
        for part in parts:
            part.discard()


def attach(
    engine: StoreEngine, output: SegmentOutput, bounds: Bounds
) -> tuple[list[SegmentRecord], JournalWriter | None, int]:
    """The commit of a load: journal frame, then visible.  Returns what to sync to."""
    inner = engine.core_engine
    with WriteGuard(inner):
        tier = output.tier
        if tier == TIER_BASE and overlaps_store(engine, bounds):
            tier = TIER_NEW  # a commit came in between
        sequence = inner.sequence + 1
        records = [
            replace(
                record, tier=tier, first_sequence=sequence, last_sequence=sequence,
                run=output.records[0].id,
            )
            for record in output.records
        ]  # fmt: skip
        readers: list[SegmentReader] = [engine.reader(record) for record in records]
        payload = attach_payload(records)
        version = engine.version_with(readers)
        journal, position = inner.commit_attach(payload, engine.core, version, output)
    return records, journal, position


def read_ahead(engine: StoreEngine, records: list[SegmentRecord], threads: int) -> None:
    """Direct writes leave nothing in the page cache: reads back what fits free memory."""
    wanted = {record.id for record in records}
    if sum(record.bytes for record in records) > engine.files.free_memory() // 2:
        return
    for reader in engine.core.version.segments():
        if reader.record.id in wanted:
            reader.read_ahead(check=True, threads=threads)


def settle(engine: StoreEngine) -> None:
    """A memtable that the load froze is written out, and sources are merged when they are many."""
    newer, _ = engine.split_sources()
    if len(newer) > 1:
        tidy(engine)
