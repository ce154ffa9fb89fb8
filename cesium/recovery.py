"""Replaying the journal into tables, when a store is opened and when a reader follows a writer.

What counts of the journal is in replay.py, how frames are applied in _recovery.pyx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from cesium._engine import Engine, TableCore, freeze_tables
from cesium._recovery import Recovery
from cesium._segment import SegmentReader
from cesium.errors import CorruptionError
from cesium.frames import Span
from cesium.journal import PROCESS_STEP_BYTES, SYNC_STEP_BYTES, Journal
from cesium.replay import Place
from cesium.state import SegmentRecord, State, attached
from cesium.table_engine import TableEngine

if TYPE_CHECKING:
    from cesium.engine import StoreEngine


class Side(NamedTuple):
    """Where a journal is applied on the side: TableCores by table id, and what they count in."""

    inner: Engine
    cores: dict[int, TableCore]
    reader: Callable[[TableEngine, SegmentRecord], SegmentReader]


def journal_of(
    engine: StoreEngine, state: State, names: list[str], after: Place | None = None
) -> Journal:
    """The journal among some names, to be replayed; after: from there on."""
    step = SYNC_STEP_BYTES if engine.options.durability == "sync" else PROCESS_STEP_BYTES
    return Journal(
        engine.files,
        state.store_uuid,
        names=names,
        flushed_sequence=state.flushed_sequence,
        manifest_generation=state.generation,
        minimum_epoch=state.epoch,
        prepare_step_bytes=step,
        after=after,
        retention_bytes=engine.options.journal_retention_bytes,
    )


def apply_journal(
    engine: StoreEngine,
    state: State,
    tables: Mapping[int, TableEngine],
    spans: Iterable[Span],
    side: Side | None = None,
) -> list[SegmentReader]:
    """Applies frames to tables that nobody reads yet; returns the segments that loads attached.

    state: of the manifest; what was dropped by then is left out.  side: what they are applied to
    instead of the tables' own cores, and what gives the readers of segments.
    """
    inner = side.inner if side else engine.core_engine
    cores = side.cores if side else {number: tables[number].core for number in tables}
    loaded: list[SegmentReader] = []

    def attach(sequence: int, payload: bytes) -> None:
        records = attached(payload)
        for record in records:
            engine.next_segment_id = max(engine.next_segment_id, record.id + 1)
        table = tables.get(records[0].table)
        if table is None:
            if records[0].table < state.next_table_id:
                return
            raise CorruptionError(
                f"the journal loads into table {records[0].table}, which is not there"
            )
        reader = side.reader if side else TableEngine.reader
        readers = [reader(table, record) for record in records]
        freeze_tables(inner, list(cores.values()))
        core = cores[table.record.id]
        core.publish(table.version_with(readers, core))
        loaded.extend(readers)

    recovery = Recovery(cores, state.next_table_id, attach)
    for span in spans:
        recovery.apply(span.data, span.start, span.end, span.base)
    recovery.finish()
    return loaded
