"""What a store is made of and has done, in numbers: docs/observability.md says what each means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from cesium._counters import LATENCIES, Counters
from cesium._memtable import MemtableSnapshot
from cesium._ranges import View
from cesium._segment import SegmentReader
from cesium.directory import OWN_FILES, bytes_of
from cesium.durability import durable_sequence
from cesium.engine import StoreEngine
from cesium.errors import ClosedError
from cesium.figures import bytes_text, seconds_text
from cesium.journal_reader import reaches_back
from cesium.named import checkpoint_bytes
from cesium.reclaim import blob_totals
from cesium.showing import Grid, Look
from cesium.table_engine import Source


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, in seconds, since the store was opened.

    calls: how many there were.  Of single gets, puts and deletes, and of small buffers of a range,
    one in about 64 is timed, at random distances, and stands for those since the one before, so
    min and max are those of the timed ones.  Quantiles are off by at most 1/64.
    """

    calls: int
    min: float
    mean: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, counters: Counters, name: str) -> Latency:
        """One of cesium._counters.LATENCIES; all zero when it never happened."""
        found = counters.latency(name)
        if found is None:
            return cls(0, 0, 0, 0, 0, 0, 0, 0)
        return cls(found[0], *(nanoseconds / 1e9 for nanoseconds in found[1:]))


@dataclass(frozen=True, slots=True)
class Tier:
    """The segments of one tier, newest first; runs of one tier may overlap, those of the last not.

    entries: delete markers included.  range_deletes: markers that delete a range each.
    """

    tier: int
    runs: int
    segments: int
    entries: int
    delete_markers: int
    range_deletes: int
    bytes: int

    @property
    def tombstone_density(self) -> float:
        """The share of the entries that are delete markers."""
        return self.delete_markers / self.entries if self.entries else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class Stats:
    """The store at one moment, all tables of it.  Bytes are those of files and of memory held by
    memtables.

    tables: beside the default one.
    estimated_rows: entries of all sources, delete markers taken off; constant time.
    blob_dead_bytes: of values in blob files that no segment points to.
    journal_dropped_bytes: what opening found behind the last whole commit of the journal and
    ignored, because nothing showed that it had been synced: 0 after a clean close.
    journal_kept_bytes: of journal files whose commits are in segments too.  changes_since: the
    earliest sequence after which `Store.changes` has all commits.
    stall_seconds: that writes waited for maintenance, in sum, since the store was opened.
    debt_bytes: of memtables set aside and of all that lies above the last tier.
    snapshots: that are open.  snapshot_bytes: of segments that only they still need.
    checkpoints: that have a name.  checkpoint_bytes: of files that only they still need.
    maintenance_failure: why the last flush or merge after a write failed, until one succeeds; the
    commits are kept all the same.
    tiers: newest first.  directory_bytes: all files of the store.
    counters: what was done since the store was opened, by name.
    filter_false_positive_rate: of the questions to filters about keys that their segments do not
    have, the share that was answered with a needless yes; None before any was asked.
    write_amplification: bytes written to the journal, by flushes, merges and loads, over the bytes
    of keys and values put; None before anything was put.
    read_amplification: sources that a range merges, and that a get of a missing key may ask, of the
    table that has most.
    space_amplification: directory_bytes over the estimated rows times the bytes that an entry takes
    in segments and memtables on average; None for an empty store.
    latency: of "get", "put" (and delete, both one at a time), "range" (one buffer or array read),
    "flush", "merge".
    """

    tables: int
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
    journal_kept_bytes: int
    changes_since: int
    write_waits: int
    stall_seconds: float
    debt_bytes: int
    snapshots: int
    snapshot_bytes: int
    checkpoints: int
    checkpoint_bytes: int
    maintenance_failure: str | None
    directory_bytes: int
    tiers: tuple[Tier, ...]
    counters: dict[str, int]
    filter_false_positive_rate: float | None
    write_amplification: float | None
    read_amplification: float
    space_amplification: float | None
    latency: dict[str, Latency]

    def as_dict(self) -> dict[str, Any]:
        """The same as a dict."""
        return asdict(self)

    def _look(self) -> Look:
        grids = [Grid(header, rows, title, (False,)) for title, header, rows in self.sections()]
        return Look("", (), grids)

    def __repr__(self) -> str:
        return self._look().text()

    def _repr_html_(self) -> str:
        return self._look().html()

    def sections(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        """What print() and `cesium stats` show: titles, columns and rows of text."""
        skipped = ("tiers", "counters", "latency")
        facts = [(name, value) for name, value in asdict(self).items() if name not in skipped]
        return [
            ("store", ("", ""), [(name, _text(name, value)) for name, value in facts]),
            (
                "tiers",
                ("tier", "runs", "segments", "entries", "delete markers", "range deletes", "bytes"),
                [
                    (
                        str(tier.tier), str(tier.runs), str(tier.segments), f"{tier.entries:,}",
                        f"{tier.delete_markers:,}", str(tier.range_deletes), bytes_text(tier.bytes),
                    )
                    for tier in self.tiers
                ],
            ),
            (
                "latency",
                ("", "calls", "min", "mean", "p50", "p90", "p99", "p99.9", "max"),
                [
                    (
                        name, f"{found.calls:,}",
                        *(
                            seconds_text(getattr(found, part))
                            for part in ("min", "mean", "p50", "p90", "p99", "p99_9", "max")
                        ),
                    )
                    for name, found in self.latency.items()
                    if found.calls
                ],
            ),
            (
                "since opening", ("", ""),
                [(name, _text(name, value)) for name, value in self.counters.items() if value],
            ),
        ]  # fmt: skip


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes"):
        return bytes_text(value)
    if name.endswith("_amplification"):
        return f"{value:.2f}"
    if name.endswith("_rate"):
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def tiers_of(sources: Iterable[object]) -> tuple[Tier, ...]:
    """Tiers of versions' sources, newest first."""
    runs: dict[int, list[list[SegmentReader]]] = {}
    for source in sources:
        if isinstance(source, list) and source:
            runs.setdefault(source[0].record.tier, []).append(source)
    return tuple(
        Tier(
            tier, len(found), sum(map(len, found)),
            *(
                sum(getattr(reader.record, name) for run in found for reader in run)
                for name in ("rows", "delete_markers", "markers", "bytes")
            ),
        )
        for tier, found in sorted(runs.items())
    )  # fmt: skip


def stats(engine: StoreEngine) -> Stats:
    """Counts what is there now, without reading any page."""
    tables = list(engine.tables.values())
    newer: list[Source] = []
    base: list[list[SegmentReader]] = []
    deepest = 0
    live = {"bytes": 0, "entries": 0}
    for table in tables:
        above, run = table.split_sources()
        counted = table.core.live_counters()
        newer += above
        base += [run] if run else []
        deepest = max(deepest, len(above) + bool(run) + bool(counted["entries"]))
        for name in live:
            live[name] += counted[name]
    frozen = [source for source in newer if isinstance(source, MemtableSnapshot)]
    tiers = tiers_of([*newer, *base])
    blobs = blob_totals(reader.record for reader in engine.segments())
    journals = engine.journal.files
    rows = sum(View(table.core).estimated_rows() for table in tables)
    segment_bytes = sum(tier.bytes for tier in tiers)
    counters = engine.core_engine.counters
    counts = counters.counts()
    entry_bytes = segment_bytes + live["bytes"] + sum(kept for _, _, kept in blobs.values())
    entries = live["entries"] + sum(tier.entries for tier in tiers)
    for memtable in frozen:
        entry_bytes += memtable.memtable.counters()["bytes"]
        entries += memtable.entries
    on_drive = bytes_of(engine.files, OWN_FILES)
    snapshots = open_snapshots(engine)
    return Stats(
        tables=len(tables) - 1,
        estimated_rows=rows,
        sequence=engine.sequence,
        durable_sequence=durable_sequence(engine),
        segments=sum(tier.segments for tier in tiers),
        segment_bytes=segment_bytes,
        blob_files=len(blobs),
        blob_bytes=sum(size for size, _, _ in blobs.values()),
        blob_dead_bytes=sum(values - live for _, values, live in blobs.values()),
        newer_sources=len(newer),
        base_segments=sum(map(len, base)),
        frozen_memtables=len(frozen),
        memtable_entries=live["entries"],
        memtable_bytes=live["bytes"],
        journal_files=len(journals),
        journal_bytes=sum(file.bytes for file in journals),
        journal_dropped_bytes=engine.journal.dropped_bytes,
        journal_kept_bytes=sum(file.bytes for file in engine.journal.detached.records),
        changes_since=reaches_back(engine),
        write_waits=engine.core_engine.waits,
        stall_seconds=engine.core_engine.stall_nanoseconds / 1e9,
        debt_bytes=sum(map(bytes_of_source, newer)),
        snapshots=len(snapshots),
        snapshot_bytes=kept_bytes(engine, snapshots),
        checkpoints=len(engine.manifest.state.named),
        checkpoint_bytes=checkpoint_bytes(engine.manifest.state),
        maintenance_failure=engine.upkeep.failure,
        directory_bytes=on_drive,
        tiers=tiers,
        counters=counts,
        filter_false_positive_rate=_false_positive_rate(counts),
        write_amplification=_written(counts, engine.core_engine.bytes_put),
        read_amplification=deepest,
        space_amplification=on_drive * entries / (rows * entry_bytes) if rows else None,
        latency={name: Latency.of(counters, name) for name in LATENCIES},
    )


def open_snapshots(engine: StoreEngine) -> list[list[View]]:
    """What the open snapshots read, each."""
    views = []
    for reference in engine.snapshots.valuerefs():
        snapshot = reference()
        with contextlib.suppress(ClosedError):  # in this moment, too
            if snapshot is not None:
                views.append(snapshot.views())
    return views


def kept_bytes(engine: StoreEngine, snapshots: list[list[View]]) -> int:
    """Of the segments that snapshots read and the store does not."""
    kept = {reader for views in snapshots for view in views for reader in view.version.segments()}
    kept.difference_update(engine.segments())
    return sum(reader.record.bytes for reader in kept)


def _written(counts: dict[str, int], bytes_put: int) -> float | None:
    put = bytes_put + counts["loaded_bytes"]
    written = sum(
        counts[name] for name in ("journal_bytes", "flush_bytes", "merge_bytes", "load_bytes")
    )
    return written / put if put else None


def _false_positive_rate(counts: dict[str, int]) -> float | None:
    wrong = counts["filter_false_positives"]
    absent = wrong + counts["filter_negatives"]
    return wrong / absent if absent else None


def bytes_of_source(source: Source) -> int:
    """What a source takes in memory or in files."""
    if isinstance(source, MemtableSnapshot):
        return int(source.memtable.counters()["bytes"])
    return sum(reader.record.bytes for reader in source)
