"""Bulk loads: arrays in any order to segments, made visible by one attach frame.

Rows are encoded and sorted in memory, in runs within the memory limit; several runs are written as
segments, one before the next is sorted, and merged.  Segments are written and synced first; then,
under the writer lock, the memtable is frozen and a frame that names the segments is appended: that
frame is the commit.  A load that overlaps nothing goes to the last tier at once, else above all
that is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from cesium._builder import SegmentBuilder
from cesium._core import Commit
from cesium._engine import WriteGuard
from cesium._journal import JournalWriter
from cesium._keys import EncodedKeys
from cesium._load import LoadRows, is_ascending, keys_part, sorted_row_bytes, values_part
from cesium._merge import Merge
from cesium._segment import SegmentReader
from cesium._values import EncodedValues
from cesium._version import Version
from cesium.budget import adapt, filter_keys_most, sort_bytes, writers_most
from cesium.checkpoint import checkpoint
from cesium.durability import sync
from cesium.events import Fact, event
from cesium.maintenance import tidy
from cesium.origin import LOAD, RUN
from cesium.overlap import Bounds, encoded_bound, overlaps, source_bounds
from cesium.segment_output import SEGMENT_BYTES, SegmentOutput, sizes_of
from cesium.state import SegmentRecord, attach_payload
from cesium.table_engine import TIER_BASE, TIER_NEW, Source, TableEngine

RUN_ROWS_LEAST = 1 << 13  # that are sorted at once, however small the memory limit
RUNS_MOST = 64  # of one load, that are merged at once
PART_ROWS_LEAST = 1 << 16  # that are worth a thread
Progress = Callable[[int], None]


def load(
    table: TableEngine,
    keys: EncodedKeys,
    values: EncodedValues,
    threads: int,
    durability: str,
    progress: Progress | None = None,
) -> Commit:
    """Loads one batch as one commit; progress is called with the rows written so far, by steps."""
    with event(table.store, "load", rows=keys.count) as facts:
        try:
            commit = load_rows(table, keys, values, threads, durability, progress, facts)
        finally:
            adapt(table.store)  # what it held is free again
    table.store.core_engine.counters.add("loaded_bytes", encoded_bytes(keys, values))
    settle(table)
    return commit


def load_rows(
    table: TableEngine,
    keys: EncodedKeys,
    values: EncodedValues,
    threads: int,
    durability: str,
    progress: Progress | None,
    facts: dict[str, Fact],
) -> Commit:
    """The same, without the maintenance that may follow."""
    inner = table.store.core_engine
    if keys.count == 0:
        sync(table.store)  # for what came before
        return Commit(inner.sequence, durability, 0)
    with WriteGuard(inner):
        pass  # closed, read-only and poisoned stores refuse before any work is done
    most_rows = run_rows(table, keys)
    if keys.count <= most_rows:
        output, bounds = load_at_once(table, keys, values, threads, progress)
    else:
        output, bounds = load_in_runs(table, keys, values, most_rows, threads, progress)
    return commit_load(table, output, bounds, keys.count, threads, durability, facts)


def commit_load(
    table: TableEngine,
    output: SegmentOutput,
    bounds: Bounds,
    rows: int,
    threads: int,
    durability: str,
    facts: dict[str, Fact],
) -> Commit:
    """Makes what was written visible and durable; removes it if that fails."""
    inner = table.store.core_engine
    try:
        table.store.files.sync_directory()
        if inner.unjournaled:
            # Where a full drive is met, if so, with nothing of the load visible.
            checkpoint(table.store)
        records, journal, position = attach(table, output, bounds)
        facts.update(sizes_of(records), sequence=records[0].last_sequence)
    except BaseException:
        if not output.committed:
            output.discard()
        raise
    inner.wait(journal, position)
    if inner.unjournaled:
        checkpoint(table.store)
    sequence = records[0].last_sequence
    inner.durable_sequence = max(inner.durable_sequence, sequence)
    try:
        read_ahead(table, records, threads)
    except Exception as error:  # the load is committed; reading tells of what cannot be read
        table.store.upkeep.note(table.store.path, error)
    return Commit(sequence, durability, rows)


def encoded_bytes(keys: EncodedKeys, values: EncodedValues) -> int:
    """What keys and values take, as encoded: 8 bytes a fixed key."""
    arrays = (keys.heads, keys.data, values.rows, values.data)
    return sum(array.nbytes for array in arrays if array is not None)


def run_rows(table: TableEngine, keys: EncodedKeys) -> int:
    """How many rows of a batch may be sorted at once; all of them where nothing is to be sorted."""
    most = max(sort_bytes(table.store) // sorted_row_bytes(table.shape), RUN_ROWS_LEAST)
    return keys.count if keys.count > most and is_ascending(table.shape, keys) else most


def load_at_once(
    table: TableEngine,
    keys: EncodedKeys,
    values: EncodedValues,
    threads: int,
    progress: Progress | None,
) -> tuple[SegmentOutput, Bounds]:
    """A batch as one sorted run, where it belongs."""
    rows = sorted_rows(table, keys, values, threads)
    bounds = bounds_of(rows)
    return write_run(table, rows, tier_of(table, bounds), threads, progress), bounds


def load_in_runs(
    table: TableEngine,
    keys: EncodedKeys,
    values: EncodedValues,
    most_rows: int,
    threads: int,
    progress: Progress | None,
) -> tuple[SegmentOutput, Bounds]:
    """A batch by way of sorted runs, each written as segments before the next is sorted."""
    with Runs(table, threads, progress) as runs:
        for first in range(0, keys.count, most_rows):
            last = first + most_rows
            runs.add(keys_part(keys, first, last), values_part(values, first, last))
        return runs.finish()


class Runs:
    """The sorted runs of one load, in a with statement: left early, what they wrote is gone.

    Runs that rise, each above the one before, are one already and stay as they were written.
    Others are merged in the end, and many to one in between: each that is read has a mapping, and
    its fences in memory.
    """

    def __init__(self, table: TableEngine, threads: int, progress: Progress | None) -> None:
        self._table = table
        self._threads = threads
        self._progress = progress
        self._rising: SegmentOutput | None = None
        self._told = 0  # rows of `_rising` that progress has heard of
        # Runs, then what was merged of RUNS_MOST of them, and so on: no row is merged more often
        # than there are levels.  The higher, the older; each in order.
        self._levels: list[list[SegmentOutput]] = [[]]
        self._whole: tuple[bytes, bytes] | None = None

    def add(self, keys: EncodedKeys, values: EncodedValues) -> None:
        """Sorts and writes one more run, whose rows come after all before."""
        rows = sorted_rows(self._table, keys, values, self._threads)
        lower, upper = bounds_of(rows)
        if self._whole is None:
            tier = tier_of(self._table, (lower, upper))
            self._rising = write_run(self._table, rows, tier, self._threads, self._tell)
        elif self._rising is not None and lower > self._whole[1]:
            write_run(
                self._table, rows, self._rising.tier, self._threads, self._tell, LOAD, self._rising
            )
        else:
            if self._rising is not None:
                self._keep(self._rising)
                self._rising = None
            self._make_place(0)
            self._keep(write_run(self._table, rows, TIER_BASE, self._threads, None, RUN))
        least, most = self._whole or (lower, upper)
        self._whole = min(least, lower), max(most, upper)

    def finish(self) -> tuple[SegmentOutput, Bounds]:
        """All runs as one, where it belongs, and its bounds."""
        assert self._whole is not None
        if self._rising is not None:
            rising, self._rising = self._rising, None
            return rising, self._whole
        runs = [run for level in reversed(self._levels) for run in level]
        self._levels = [[]]
        tier, told = tier_of(self._table, self._whole), self._tell_merged
        return merge_runs(self._table, runs, tier, LOAD, told), self._whole

    def _tell(self, rows: int) -> None:
        self._told += rows
        if self._progress is not None:
            self._progress(rows)

    def _tell_merged(self, rows: int) -> None:
        known = min(rows, self._told)
        self._told -= known
        if self._progress is not None and rows > known:
            self._progress(rows - known)

    def _keep(self, run: SegmentOutput, level: int = 0) -> None:
        self._levels[level].append(run)
        self._table.store.core_engine.counters.add("load_bytes", bytes_of(run))

    def _make_place(self, level: int) -> None:
        if len(self._levels[level]) < RUNS_MOST:
            return
        if level + 1 == len(self._levels):
            self._levels.append([])
        self._make_place(level + 1)
        merged = merge_runs(self._table, self._levels[level], TIER_BASE, RUN)
        self._levels[level] = []
        self._keep(merged, level + 1)

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *error: object) -> None:
        if self._rising is not None:
            self._rising.discard()
        for level in self._levels:
            for run in level:
                run.discard()


def sorted_rows(
    table: TableEngine, keys: EncodedKeys, values: EncodedValues, threads: int
) -> LoadRows:
    """The rows in order, what that takes counted."""
    rows = LoadRows(table.shape, keys, values, threads, table.store.core_engine.counters)
    adapt(table.store)
    return rows


def bounds_of(rows: LoadRows) -> tuple[bytes, bytes]:
    """The smallest and the largest key, as bytes."""
    return encoded_bound(rows.key(0)), encoded_bound(rows.key(rows.count - 1))


def bytes_of(output: SegmentOutput) -> int:
    """Bytes of the segments made."""
    return sum(record.bytes for record in output.records)


def tier_of(table: TableEngine, bounds: Bounds) -> int:
    """Where a load goes: into the last tier only if it overlaps nothing."""
    return TIER_NEW if overlaps_store(table, bounds) else TIER_BASE


def overlaps_store(table: TableEngine, bounds: Bounds) -> bool:
    """Whether anything in the store shares a key's place with the load."""
    live = table.core.pin_live()
    newer, base = table.split_sources()
    sources: list[Source] = [*newer, *([reader] for reader in base)]
    if live is not None:
        sources.append(live)
    return any(overlaps(bounds, source_bounds(source)) for source in sources)


def write_run(
    table: TableEngine,
    rows: LoadRows,
    tier: int,
    threads: int,
    progress: Progress | None,
    made: str = LOAD,
    output: SegmentOutput | None = None,
) -> SegmentOutput:
    """One sorted run as segments, of an output that there is; several threads write a part each."""
    if output is None:
        output = SegmentOutput(table, tier, table.store.core_engine.sequence, 0, made)
    filter_most = 0 if tier == TIER_BASE else filter_keys_most(table.store)
    parts = max(1, min(threads, rows.count // PART_ROWS_LEAST, writers_most(table.store)))
    edges = [rows.count * part // parts for part in range(parts + 1)]

    stopped = threading.Event()  # by an interrupt, which only the main thread gets

    def write_part(part: int) -> None:
        place, end = edges[part], edges[part + 1]
        while place < end and not stopped.is_set():
            last = min(end, place + filter_most) if filter_most else end
            builder: SegmentBuilder = output.builder(last - place if filter_most else 0)
            try:
                before = place
                place = rows.write(builder, place, last, SEGMENT_BYTES)
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
                try:
                    list(pool.map(write_part, range(parts)))
                except BaseException:
                    stopped.set()
                    raise
    except BaseException:
        output.discard()
        raise
    output.records.sort(key=lambda record: record.lower)
    return output


def merge_runs(
    table: TableEngine,
    runs: list[SegmentOutput],
    tier: int,
    made: str,
    progress: Progress | None = None,
) -> SegmentOutput:
    """Several sorted runs as one, later ones winning; they are gone then, whatever happens."""
    output = SegmentOutput(table, tier, table.store.core_engine.sequence, 0, made)
    try:
        for run in runs:
            output.known_blobs |= run.known_blobs
        sources = [[table.reader(record) for record in run.records] for run in reversed(runs)]
        output.write_merge(
            Merge(Version(table.shape, sources, False), False),
            SEGMENT_BYTES,
            markers=False,
            filter_keys=0 if tier == TIER_BASE else SEGMENT_BYTES // 16,
            progress=progress,
        )
        # What the runs moved into blob files stays there: the output has the pointers.
        output.adopt(runs)
        return output
    finally:
        for run in runs:
            run.discard()


def attach(
    table: TableEngine, output: SegmentOutput, bounds: Bounds
) -> tuple[list[SegmentRecord], JournalWriter | None, int]:
    """The commit of a load: journal frame, then visible.  Returns what to sync to."""
    inner = table.store.core_engine
    with WriteGuard(inner, commits=True):
        tier = output.tier
        if tier == TIER_BASE and overlaps_store(table, bounds):
            tier = TIER_NEW  # a commit came in between
        sequence = inner.sequence + 1
        records = [
            replace(
                record, tier=tier, first_sequence=sequence, last_sequence=sequence,
                run=output.records[0].id,
            )
            for record in output.records
        ]  # fmt: skip
        readers: list[SegmentReader] = [table.reader(record) for record in records]
        payload = attach_payload(records)
        table.store.freeze()
        version = table.version_with(readers)
        journal, position = inner.commit_attach(payload, table.core, version, output)
    return records, journal, position


def read_ahead(table: TableEngine, records: list[SegmentRecord], threads: int) -> None:
    """Direct writes leave nothing in the page cache: reads back what fits free memory."""
    wanted = {record.id for record in records}
    if sum(record.bytes for record in records) > table.store.files.free_memory() // 2:
        return
    for reader in table.segments():
        if reader.record.id in wanted:
            reader.read_ahead(check=True, threads=threads)


def settle(table: TableEngine) -> None:
    """A memtable that the load froze is written out, and sources are merged when they are many."""
    newer, _ = table.split_sources()
    if len(newer) > 1:
        tidy(table.store)
