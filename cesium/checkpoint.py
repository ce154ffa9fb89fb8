"""Flush and checkpoint: from memtables to segments, from the journal to the manifest.

`checkpoint` and `close` take `engine.maintenance`; the other functions are called with it held.
Files are written and synced first, then published to readers, then recorded in the manifest, and
only then is what they replace unlinked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

from cesium._blob_writer import BlobOutput
from cesium._builder import SegmentBuilder
from cesium._engine import WriteGuard
from cesium._memtable import MemtableSnapshot
from cesium._merge import DONE, MORE, STOPPED, Merge
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.blob_files import files_of, shares_of
from cesium.budget import adapt, filter_keys_most
from cesium.directory import blob_name, segment_name
from cesium.engine import TIER_BASE, TIER_NEW, Source, StoreEngine
from cesium.errors import StorageFullError
from cesium.events import event
from cesium.origin import FLUSH, Origin
from cesium.overlap import last_sequence_of, overlaps, source_bounds
from cesium.reclaim import let_go
from cesium.state import Edit, SegmentRecord

SEGMENT_BYTES = 64 << 20
CUT_BYTES = 16 << 20  # of a segment that may end where one below it begins
STEP_BYTES = 4 << 20  # of a merge's output, at once: tens of milliseconds

Step = Callable[[int], None]  # called with the bytes written since the last call; may raise


def no_step(done: int) -> None:
    """What is done between the steps of a merge that nobody stops."""


class SegmentOutput:
    """Makes the segments of one flush, load or merge; on failure removes them again."""

    def __init__(
        self,
        engine: StoreEngine,
        tier: int,
        first_sequence: int,
        last_sequence: int,
        made: str,
        inputs: Collection[SegmentReader] = (),
    ) -> None:
        self.engine = engine
        self.tier = tier
        self.first_sequence = first_sequence
        self.last_sequence = last_sequence
        self.origin = Origin(
            made, tier, engine.table, frozenset(reader.record.id for reader in inputs),
            not engine.core_engine.unjournaled,
        ).to_bytes()  # fmt: skip
        self.threshold = engine.options.blob_threshold_bytes
        self.moved: frozenset[int] = frozenset()  # blob files whose values are written anew
        self.records: list[SegmentRecord] = []
        # The blob files that this output may refer to.
        self.known_blobs = files_of(reader.record for reader in inputs)
        self.own_blobs: set[int] = set()
        self.run = 0  # what the segments above the last tier are one source by
        self.step: Step = no_step
        self.committed = False  # a load's: the journal names the segments

    def builder(self, filter_keys: int = 0) -> SegmentBuilder:
        """A builder for the next segment; filter_keys sizes its filter, 0 is none."""
        segment_id = self.engine.allocate_segment_id()
        uuid = self.engine.manifest.state.store_uuid
        blobs = BlobOutput(
            self.engine.files, blob_name(segment_id), segment_id, uuid, self.engine.table.id,
            self.threshold, self.moved,
        )  # fmt: skip
        builder = SegmentBuilder(
            self.engine.files,
            segment_name(segment_id),
            segment_id,
            uuid,
            self.engine.shape,
            filter_keys=filter_keys,
            first_sequence=self.first_sequence,
            last_sequence=self.last_sequence,
            table_id=self.engine.table.id,
            origin=self.origin,
            blobs=blobs,
            counters=self.engine.core_engine.counters,
        )
        try:
            adapt(self.engine)
        except BaseException:  # nobody else has it yet
            builder.abort()
            raise
        return builder

    def finish(self, builder: SegmentBuilder) -> SegmentRecord | None:
        """Completes a segment, durably but for its name; None when it would be empty."""
        made = builder.finish()
        if not made["rows"] and not made["range_deletes"]:
            self.engine.files.unlink(segment_name(made["id"]))
            adapt(self.engine)
            return None
        if builder.blobs.made_file is not None:
            self.known_blobs[builder.blobs.blob_id] = builder.blobs.made_file
            self.own_blobs.add(builder.blobs.blob_id)
        if not made["range_deletes"]:
            self.run = self.run or made["id"]
        record = SegmentRecord(
            id=made["id"],
            table=self.engine.table.id,
            tier=self.tier,
            lower=made["lower"],
            upper=made["upper"],
            rows=made["rows"],
            markers=made["range_deletes"],
            delete_markers=made["delete_markers"],
            first_sequence=self.first_sequence,
            last_sequence=self.last_sequence,
            bytes=made["bytes"],
            pages=made["page_count"],
            checksum=made["checksum"],
            blobs=shares_of(made["blobs"], self.known_blobs),
            run=0 if made["range_deletes"] else self.run,
        )
        self.records.append(record)
        adapt(self.engine)  # not before: what is not listed would not be removed if this fails
        return record

    def discard(self) -> None:
        """Removes every segment made so far, and the blob files that were made with them."""
        self.engine.files.remove(*(segment_name(record.id) for record in self.records))
        self.engine.files.remove(*(blob_name(number) for number in self.own_blobs))
        self.records.clear()
        self.own_blobs.clear()

    def adopt(self, parts: Iterable[SegmentOutput]) -> None:
        """Takes over the blob files of the parts that this output was merged from."""
        for part in parts:
            self.own_blobs |= part.own_blobs
            part.own_blobs.clear()

    @contextlib.contextmanager
    def publishing(self) -> Iterator[list[SegmentReader]]:
        """Makes the files' names durable and gives readers; on failure removes the files again."""
        try:
            self.engine.files.sync_directory()
            yield [self.engine.reader(record) for record in self.records]
        except BaseException:
            visible = {reader.record.id for reader in self.engine.core.version.segments()}
            if visible.isdisjoint(record.id for record in self.records):
                self.discard()  # not an interrupt right after publishing
            raise

    def write_markers(self, merge: Merge) -> None:
        """The range-deletes of a merge's sources as a segment without rows."""
        builder = self.builder()
        try:
            merge.write_markers(builder)
            self.finish(builder)
        except BaseException:
            builder.abort()
            raise

    def write_merge(
        self,
        merge: Merge,
        most_bytes: int | None,
        markers: bool,
        filter_keys: int,
        progress: Callable[[int], None] | None = None,
        cuts: Iterable[bytes] = (),
    ) -> None:
        """All rows of a merge, split at `most_bytes` a segment (None: one segment).

        cuts: encoded keys where segments end besides, those of CUT_BYTES or more.  filter_keys: of
        most_bytes; where a filter for so many is too large for the memory limit, segments are
        smaller.
        """
        filter_most = filter_keys_most(self.engine)
        if most_bytes is not None and filter_keys > filter_most:
            most_bytes = most_bytes * filter_most // filter_keys
            filter_keys = filter_most
        more = True
        descending = sorted(cuts, reverse=True)
        try:
            while more:
                builder = self.builder(filter_keys)
                try:
                    if markers:
                        merge.write_markers(builder)
                    more = self._write_segment(merge, builder, most_bytes or (1 << 62), descending)
                    record = self.finish(builder)
                except BaseException:
                    builder.abort()
                    raise
                if progress is not None and record is not None:
                    progress(record.rows)
        except BaseException:
            self.discard()
            raise

    def _write_segment(
        self, merge: Merge, builder: SegmentBuilder, most_bytes: int, cuts: list[bytes]
    ) -> bool:
        """Rows for one segment, in steps between which the merge may be stopped; False at the end.

        cuts: keys in descending order, where a segment of CUT_BYTES or more ends; used ones go.
        """
        while True:
            before = builder.bytes
            reached = merge.write(
                builder, most_bytes, stop=cuts[-1] if cuts else None, slice_bytes=STEP_BYTES
            )
            self.step(builder.bytes - before)
            if reached == STOPPED:
                cuts.pop()
                if builder.bytes >= CUT_BYTES:
                    return True
            elif reached != MORE:
                return reached != DONE


def sizes_of(records: Iterable[SegmentRecord]) -> dict[str, int]:
    """What an event tells of the segments that were made."""
    sizes = [record.bytes for record in records]
    return {"segments_written": len(sizes), "bytes_written": sum(sizes)}


def frozen_memtables(engine: StoreEngine) -> Iterator[MemtableSnapshot]:
    """The frozen memtables, oldest first."""
    newer, _ = engine.split_sources()
    return (source for source in reversed(newer) if isinstance(source, MemtableSnapshot))


def flush(engine: StoreEngine, snapshot: MemtableSnapshot) -> list[SegmentReader]:
    """Writes one frozen memtable out, puts its segments in its place and returns them."""
    newer, base = engine.split_sources()
    place = next(index for index, source in enumerate(newer) if source is snapshot)
    older: list[Source] = [*newer[place + 1 :], *([reader] for reader in base)]
    bounds = source_bounds(snapshot)
    overlapping = any(overlaps(bounds, source_bounds(source)) for source in older)
    # Its own last sequence, not today's: a load that attached since is newer.
    sequence = snapshot.last_sequence
    tier = TIER_NEW if overlapping else TIER_BASE
    # Its commits come after all that lies below, a load that froze it included: with that a lost
    # manifest can be made again.
    below = [last_sequence_of(source) for source in older]
    first = max(
        [engine.manifest.state.flushed_sequence, *(last for last in below if last < sequence)]
    )
    output = SegmentOutput(engine, tier, first, sequence, FLUSH)
    output.write_merge(
        Merge(Version(engine.shape, [snapshot], False), overlapping),
        None if overlapping else SEGMENT_BYTES,
        markers=overlapping,
        filter_keys=snapshot.entries if overlapping else 0,
    )
    with output.publishing() as readers, WriteGuard(engine.core_engine):
        newer, base = engine.split_sources()
        place = next(index for index, source in enumerate(newer) if source is snapshot)
        if overlapping:
            newer[place : place + 1] = [readers] if readers else []
        else:
            del newer[place]
            base = [*base, *readers]
        engine.core.publish(engine.version_of(newer, base))
        engine.core_engine.stalled = False
    engine.room.set()
    return readers


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
        engine.core.freeze()
        sequence = engine.core_engine.sequence
        known = {reader.record.id for reader in engine.core.version.segments()}
    frozen = list(frozen_memtables(engine))
    state = engine.manifest.state
    if not frozen and sequence == state.flushed_sequence and known == set(state.segments):
        return
    with event(engine, "checkpoint", sequence=sequence, memtables=len(frozen)):
        flush_through(engine, frozen, sequence)


def flush_through(engine: StoreEngine, frozen: list[MemtableSnapshot], sequence: int) -> None:
    """Brings the oldest memtables and all else up to `sequence` into segments and the manifest.

    frozen: oldest first; sequence: the last commit that the last of them holds, or a later one that
    is in segments already.
    """
    for snapshot in frozen:
        memory_bytes = snapshot.memtable.counters()["bytes"]
        with event(engine, "flush", rows=snapshot.entries, memory_bytes=memory_bytes) as facts:
            facts.update(sizes_of(reader.record for reader in flush(engine, snapshot)))
    engine.core_engine.stalled = False
    # A load that attached since is in the journal still, and is replayed from there.
    known = {
        reader.record.id
        for reader in engine.core.version.segments()
        if reader.record.last_sequence <= sequence
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
        for reader in engine.core.version.segments()
        if reader.record.id in known or reader.record.id in unrecorded
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
