"""Building a store from what is left of another: sound segments as they are, damaged ones written
anew without what cannot be read, the journal's commits on top.

The source is only read.  The target directory belongs to the caller, who throws it away when this
fails.  Thread safety: a Salvager belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cesium import checkpoint as checkpoints
from cesium._blob_writer import BlobOutput
from cesium._builder import SegmentBuilder
from cesium._engine import WriteGuard
from cesium._frames import skip_through
from cesium._keys import KeyCodec
from cesium._page import TableShape
from cesium._ranges import View
from cesium._recovery import apply_span
from cesium._segment import SegmentReader
from cesium.blob_files import BlobFiles, files_of, shares_of
from cesium.copies import link_or_copy
from cesium.directory import blob_name, blob_numbers, segment_name, segment_numbers
from cesium.engine import StoreEngine
from cesium.errors import CorruptionError, Error
from cesium.files import Files
from cesium.frames import Span, count_frames, groups_of
from cesium.manifest import Manifest
from cesium.named import named_records, tables_of
from cesium.options import Options
from cesium.origin import Origin
from cesium.rebuild import Plan
from cesium.records import TABLES_END, NamedVersion
from cesium.replay import journal_name
from cesium.report import FileReport, Problem
from cesium.scan_journal import Break, JournalScan
from cesium.scan_segment import Keys, SegmentScan, read_pages, scan
from cesium.scan_values import FileProblems
from cesium.schema import plain_table
from cesium.state import Edit, SegmentRecord, attached_records
from cesium.table_engine import TIER_BASE, TIER_NEW, TableEngine
from cesium.verify import Scrubber, record_keys, verify

KEPT, REWRITTEN, LOST = "kept", "rewritten", "lost"


@dataclass(slots=True)
class Part:
    """One segment of the store to be repaired, and what becomes of it.

    rows: in the new store, delete markers included.  lost: None where nobody can count them.
    """

    record: SegmentRecord
    report: FileReport
    outcome: str
    looked: SegmentScan | None = None
    rows: int = 0
    lost: int | None = 0
    made: bool = False

    @property
    def keys(self) -> list[Keys]:
        """The intervals of keys, encoded, in which something is lost."""
        if self.looked is None:
            return []
        return [page.keys for page in self.looked.bad if page.keys is not None]


@dataclass(slots=True)
class Applied:
    """What of the journal is in the new store.  lost: sequences that no sound frame holds."""

    frames: int = 0
    left: int = 0
    stopped: str | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the rows of a table are; keys: None for a user's codec."""

    shape: TableShape
    keys: KeyCodec | None


class Salvager:
    """See the module.  skips: whether the journal is followed past a break (mode salvage)."""

    def __init__(
        self, source: Files, target: Files, plan: Plan, kinds: dict[int, Kind], skips: bool
    ) -> None:
        self.source = source
        self.target = target
        self.plan = plan
        self.kinds = kinds
        self.skips = skips
        self.parts: dict[int, Part] = {}
        self.blobs = BlobFiles(source, plan.state.store_uuid)
        self.blob_problems: FileProblems = {}
        self.moved: set[int] = set()  # blob files whose values are written anew
        self.notes: list[str] = []
        self.left_out = 0  # operations of the journal, of tables that are not there
        # Without the manifest nobody knows which tables there were, and one that is not known must
        # not keep the commits of the others back.
        self.table_ids_end = TABLES_END if plan.rebuilt else plan.state.next_table_id
        numbers = [*segment_numbers(source.list()), *blob_numbers(source.list())]
        self.next_id = max([plan.state.next_segment_id, *(number + 1 for number in numbers)])

    # -- looking

    def look(self, paced: Callable[[int], None]) -> None:
        """Reads every segment that the plan names."""
        state = self.plan.state
        for record in [*state.segments.values(), *self.plan.attached.values()]:
            self.parts[record.id] = self._look_at(record, paced)
        for record in named_records(state):
            if record.id not in self.parts:
                self.parts[record.id] = self._look_at(record, paced)

    def _look_at(self, record: SegmentRecord, paced: Callable[[int], None]) -> Part:
        name = segment_name(record.id)
        path = self.source.path(name)
        kind = self.kinds[record.table]
        scrubber = Scrubber(self.source, paced, kind.keys, kind.shape)
        scrubber.blob_problems = self.blob_problems
        whole = record_keys(record, kind.shape, kind.keys)
        try:
            reader = SegmentReader(
                record, self.source, name, kind.shape, self.plan.state.store_uuid,
                self.blobs.readers(record),
            )  # fmt: skip
            self.source.size(name)
        except (FileNotFoundError, ValueError) as error:
            report = FileReport(path, "segment", rows=record.rows, readable_rows=0)
            missing = isinstance(error, FileNotFoundError)
            what = "the file is missing" if missing else str(error)
            report.problems.append(
                Problem(path, None, f"{path}: {what}", None, scrubber.interval(whole), record.rows)
            )
            return Part(record, report, LOST, lost=record.rows)
        report = scrubber.segment(reader)
        moved = {blob.id for blob in reader.blobs if self.blob_problems.get(blob.id) is not None}
        self.moved |= moved
        if not report.problems and not moved:
            return Part(record, report, KEPT, rows=record.rows)
        data = read_pages(self.source, name, lambda done: None)
        bad = {problem.page for problem in report.problems if problem.page is not None}
        sound_checksums = not any("checksum" in at.message for at in report.problems)
        looked = scan(
            data, record.id, kind.shape, record.rows, () if sound_checksums else bad, record.pages,
            self.blobs.reader,
        )  # fmt: skip
        foreign = (
            looked.footer is not None and looked.footer["store_uuid"] != self.plan.state.store_uuid
        )
        if foreign or (not looked.rows and not looked.markers):
            return Part(record, report, LOST, None if foreign else looked, lost=record.rows)
        return Part(record, report, REWRITTEN, looked)

    def order(self) -> list[SegmentRecord]:
        """All records, oldest first."""
        state = self.plan.state
        records = sorted(state.segments.values(), key=lambda at: (at.last_sequence, at.id))
        base = [record for record in records if record.tier == TIER_BASE]
        return [
            *base,
            *(record for record in records if record.tier != TIER_BASE),
            *sorted(self.plan.attached.values(), key=lambda at: (at.last_sequence, at.id)),
        ]

    # -- building

    def build(self, journal: JournalScan) -> tuple[Applied, int, int]:
        """Fills the target.  Returns what of the journal is in it, its rows, its last sequence.

        Error when what was built does not verify.
        """
        state = self.plan.state
        records = [
            made for record in state.segments.values() if (made := self._place(record)) is not None
        ]
        named = self._named_versions({record.id: record for record in records})
        plain = replace(
            state, tables={number: plain_table(at) for number, at in state.tables.items()}
        )
        Manifest.create(
            self.target,
            replace(
                plain,
                generation=max(state.generation, journal.generation) + 1,
                epoch=max(state.epoch, journal.epoch),
                segments={record.id: record for record in records},
                named=named,
                next_segment_id=self.next_id,
            ),
        ).close()
        engine = StoreEngine(
            self.target.directory, Options(flag="w", durability="process"), files=self.target
        )
        try:
            for number, table in engine.tables.items():
                table.record = state.tables[number]  # for the origins of new segments
            applied = self._apply(engine, journal)
            checkpoints.checkpoint(engine)
            report = verify(engine)
            if not report.ok:
                raise Error(f"what was built does not verify: {report.problems[0].message}")
            rows = sum(View(core).row_count() for core in engine.cores())
            sequence = engine.core_engine.sequence
            if plain.tables != state.tables:
                engine.append_edit(Edit(put_tables=tuple(state.tables.values())))
        finally:
            checkpoints.close(engine, lambda engine: None)
        self.target.unlink("LOCK")
        self.target.sync_directory()
        return applied, rows, sequence

    def _named_versions(self, made: dict[int, SegmentRecord]) -> dict[str, NamedVersion]:
        """The named versions, of what is left of their segments.  made: those in the target."""
        named = {}
        for version in self.plan.state.named.values():
            records = {}
            for record in version.segments.values():
                part = self.parts[record.id]
                if not part.made and (placed := self._place(record)) is not None:
                    made[record.id] = placed
                if record.id in made:
                    records[record.id] = replace(made[record.id], tier=record.tier, run=record.run)
                if part.outcome != KEPT and part.lost != 0:
                    self.notes.append(
                        f"the checkpoint {version.name!r} is without rows of "
                        f"{segment_name(record.id)}: older ones may show there instead"
                    )
            named[version.name] = replace(version, segments=records)
        return named

    def _place(self, record: SegmentRecord) -> SegmentRecord | None:
        """Puts one segment into the target; its record there, None when nothing is left of it."""
        part = self.parts[record.id]
        part.made = True
        if part.outcome == KEPT:
            link_or_copy(self.source, self.target, segment_name(record.id))
            self._place_blobs(record)
            return record
        if part.outcome == LOST:
            return None
        assert part.looked is not None
        made = self._rewrite(record, part.looked)
        if made is None:
            part.outcome, part.lost = LOST, record.rows
            return None
        part.rows = made.rows
        part.lost = None if part.looked.lost is None else max(record.rows - made.rows, 0)
        return made

    def _place_blobs(self, record: SegmentRecord) -> None:
        """Puts the blob files that a segment refers to into the target, if they are not there."""
        there = set(self.target.list())
        for share in record.blobs:
            if blob_name(share.id) not in there:
                link_or_copy(self.source, self.target, blob_name(share.id))

    def _rewrite(self, record: SegmentRecord, looked: SegmentScan) -> SegmentRecord | None:
        origin = b"" if looked.footer is None else looked.footer["origin"]
        if not origin:
            table = tables_of(self.plan.state)[record.table]
            origin = Origin("flush", record.tier, table).to_bytes()
        name = segment_name(record.id)
        # A number of its own: a sound blob file of the segment's number may be there, or needed.
        uuid = self.plan.state.store_uuid
        blobs = BlobOutput(
            self.target, blob_name(self.next_id), self.next_id, uuid, record.table, 0, self.moved
        )
        self.next_id += 1
        builder = SegmentBuilder(
            self.target, name, record.id, uuid, self.kinds[record.table].shape,
            filter_keys=looked.rows if record.tier == TIER_NEW else 0,
            first_sequence=record.first_sequence, last_sequence=record.last_sequence,
            table_id=record.table, origin=origin, blobs=blobs,
        )  # fmt: skip
        try:
            looked.pages.rewind()
            for number in looked.data_pages:
                looked.pages.copy(number, builder)
            for lower, upper in looked.markers:
                builder.add_marker(lower, upper)
            made = builder.finish()
        except BaseException:
            builder.abort()
            raise
        if not made["rows"] and not made["range_deletes"]:
            self.target.unlink(name)
            return None
        known = files_of([record])
        if blobs.made_file is not None:
            known[blobs.blob_id] = blobs.made_file
        shares = shares_of(made["blobs"], known)
        self._place_blobs(replace(record, blobs=shares))
        return replace(
            record, blobs=shares, lower=made["lower"], upper=made["upper"], rows=made["rows"],
            markers=made["range_deletes"], delete_markers=made["delete_markers"],
            bytes=made["bytes"], pages=made["page_count"], checksum=made["checksum"],
        )  # fmt: skip

    # -- the journal

    def _apply(self, engine: StoreEngine, journal: JournalScan) -> Applied:
        result = Applied()
        last = self.plan.state.flushed_sequence
        for file in journal.files:
            for piece in file.pieces:
                if isinstance(piece, Break):
                    if not self.skips and result.stopped is None:
                        result.stopped = piece.message
                elif result.stopped is not None:
                    result.left += count_frames(piece, last)
                else:
                    last = self._apply_span(engine, piece, last, result)
        return result

    def _apply_span(self, engine: StoreEngine, span: Span, last: int, result: Applied) -> int:
        """Applies the frames above a sequence; returns the last one's."""
        position = skip_through(span.data, span.start, span.end, span.base, last)
        for ends in groups_of(span, position):
            if result.stopped is not None:
                result.left += len(ends)
            elif self._applies(engine, span, position, ends[-1]):
                result.frames += len(ends)
            else:
                self._apply_each(engine, span, position, ends, result)
            position = ends[-1]
        return max(last, engine.core_engine.sequence)

    def _apply_each(
        self, engine: StoreEngine, span: Span, start: int, ends: list[int], result: Applied
    ) -> None:
        """Frame by frame what failed as a group; to apply the first ones again changes nothing."""
        for number, end in enumerate(ends):
            if self._applies(engine, span, start, end, result):
                result.frames += 1
            elif result.stopped is not None:
                result.left += len(ends) - number
                return
            start = end

    def _applies(
        self, engine: StoreEngine, span: Span, start: int, end: int, result: Applied | None = None
    ) -> bool:
        """Applies data[start:end] of a span; False when a frame of it is none of its tables'."""
        try:
            left_out = apply_span(
                {core.table_id: core for core in engine.cores()}, self.table_ids_end,
                span.data, start, end, span.base,
                lambda sequence, payload: self._attach(engine, payload),
            )  # fmt: skip
        except CorruptionError as error:
            if result is not None:
                path = self.source.path(journal_name(span.number))
                what = f"{path} at {start}: {error}"
                result.problems.append(Problem(path, None, what, start))
                if not self.skips:
                    result.stopped = what
            return False
        if left_out and self.plan.rebuilt and not self.left_out:
            self.notes.append(
                "the journal has commits of tables whose schema nothing says: what they did to "
                "them is left out"
            )
        self.left_out += left_out
        return True

    def _attach(self, engine: StoreEngine, payload: bytes) -> None:
        """A load of the journal: what is left of its segments."""
        try:
            records = attached_records(payload)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptionError(f"an attach frame makes no sense: {error!r}") from None
        readers = []
        table: TableEngine | None = None
        for record in records:
            part = self.parts.get(record.id)
            if part is None or part.made or record.id in self.plan.state.segments:
                continue
            self.next_id = max(self.next_id, engine.next_segment_id)
            made = self._place(record)
            engine.next_segment_id = self.next_id
            if made is not None:
                tier = TIER_NEW if self.plan.rebuilt else made.tier
                table = engine.tables[record.table]
                readers.append(table.reader(replace(made, tier=tier)))
            engine.next_segment_id = max(engine.next_segment_id, record.id + 1)
        if readers and table is not None:
            with WriteGuard(engine.core_engine):
                engine.freeze()
                table.core.publish(table.version_with(readers))
