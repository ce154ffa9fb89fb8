"""What a flush, a load or a merge makes: segments of a table, all of them or none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

from cesium._blob_writer import BlobOutput
from cesium._builder import SegmentBuilder
from cesium._merge import DONE, MORE, STOPPED, Merge
from cesium._segment import SegmentReader
from cesium.blob_files import files_of, shares_of
from cesium.budget import adapt, filter_keys_most
from cesium.directory import blob_name, segment_name
from cesium.origin import Origin
from cesium.state import SegmentRecord
from cesium.table_engine import TableEngine

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
        table: TableEngine,
        tier: int,
        first_sequence: int,
        last_sequence: int,
        made: str,
        inputs: Collection[SegmentReader] = (),
    ) -> None:
        self.table = table
        self.engine = engine = table.store
        self.tier = tier
        self.first_sequence = first_sequence
        self.last_sequence = last_sequence
        self.origin = Origin(
            made, tier, table.record, frozenset(reader.record.id for reader in inputs),
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
            self.engine.files, blob_name(segment_id), segment_id, uuid, self.table.record.id,
            self.threshold, self.moved,
        )  # fmt: skip
        builder = SegmentBuilder(
            self.engine.files,
            segment_name(segment_id),
            segment_id,
            uuid,
            self.table.shape,
            filter_keys=filter_keys,
            first_sequence=self.first_sequence,
            last_sequence=self.last_sequence,
            table_id=self.table.record.id,
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
            table=self.table.record.id,
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
    def publishing(self, synced: bool = False) -> Iterator[list[SegmentReader]]:
        """Makes the files' names durable and gives readers; on failure removes the files again.

        synced: the names are durable already.
        """
        try:
            if not synced:
                self.engine.files.sync_directory()
            yield [self.table.reader(record) for record in self.records]
        except BaseException:
            self.discard_unseen()
            raise

    def discard_unseen(self) -> None:
        """Removes the segments, but not after an interrupt right after publishing."""
        visible = {reader.record.id for reader in self.table.segments()}
        if visible.isdisjoint(record.id for record in self.records):
            self.discard()

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
