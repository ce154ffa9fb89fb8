"""Replaying the journal into a store's table, when it is opened and when a reader follows a writer.

What counts of the journal is in replay.py, how frames are applied in _recovery.pyx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cesium._engine import TableCore
from cesium._recovery import Recovery
from cesium._segment import SegmentReader
from cesium.frames import Span
from cesium.journal import PROCESS_STEP_BYTES, SYNC_STEP_BYTES, Journal
from cesium.replay import Place
from cesium.state import SegmentRecord, State, attached

if TYPE_CHECKING:
    from cesium.engine import StoreEngine


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
        tables=state.tables.values(),
        prepare_step_bytes=step,
        after=after,
        retention_bytes=engine.options.journal_retention_bytes,
    )


def apply_journal(
    engine: StoreEngine,
    core: TableCore,
    spans: Iterable[Span],
    reader: Callable[[SegmentRecord], SegmentReader],
) -> list[SegmentReader]:
    """Applies frames to a core that nobody reads yet; returns the segments that loads attached.

    reader: gives the reader of a segment.
    """
    loaded: list[SegmentReader] = []

    def attach(sequence: int, payload: bytes) -> None:
        records = attached(payload)
        for record in records:
            engine.next_segment_id = max(engine.next_segment_id, record.id + 1)
        readers = [reader(record) for record in records]
        core.publish(engine.version_with(readers, core))
        loaded.extend(readers)

    recovery = Recovery(core, attach)
    for span in spans:
        recovery.apply(span.data, span.start, span.end, span.base)
    recovery.finish()
    return loaded
