"""What a store consists of when its manifest is lost: made again from footers and the journal.

Segments say in their footers what they hold, from which commits, and whence they came
(cesium/origin.py); damaged manifests still give hints (cesium/scan_manifest.py); attach frames name
the loads that are in the journal.  What cannot be known is guessed to the safe side and said so in
`notes`: nothing that may be live is dropped but what a merge surely replaced.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cesium.blob_files import BlobFiles, shares_of
from cesium.bounds import Covered, bounds_of
from cesium.directory import blob_name, blob_numbers, segment_name, segment_numbers
from cesium.errors import CorruptionError
from cesium.files import Files
from cesium.frames import Span
from cesium.lost_schemas import shape_of, tables_of
from cesium.origin import LOAD, MERGE, RUN, Origin
from cesium.scan_segment import PAGE_BYTES, SegmentScan, find_footer, read_pages, scan
from cesium.scan_values import file_checksum
from cesium.schema import codecs_of
from cesium.scrub import Logs, attached
from cesium.state import DEFAULT_TABLE, BlobShare, SegmentRecord, State, TableRecord

TIER_NEW, TIER_BASE = 0, 1
Json = dict[str, Any]


@dataclass(slots=True)
class Plan:
    """What the repaired store is to consist of, before its segments are looked at.

    state: the tables and the numbers, and the segments oldest first; attached: those that the
    journal brings, by id.  orders: whether the order of a segment was guessed.
    """

    state: State
    attached: dict[int, SegmentRecord]
    rebuilt: bool
    notes: list[str] = field(default_factory=list)
    guessed: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Candidate:
    """One segment file.  named: by a manifest or the journal, whose record it is; else it is by its
    own account.  first, last: the commits in it, `last` 0 while not known.  group: see `_in_order`.
    """

    number: int
    footer: Json | None
    origin: Origin | None
    record: SegmentRecord
    named: bool
    first: int = 0
    last: int = 0
    group: int = 1


def known_plan(logs: Logs) -> Plan:
    """The plan of a store whose manifest is sound."""
    state = logs.manifest.state
    assert state is not None
    loads: dict[int, SegmentRecord] = {}
    for file in logs.journal.files:
        for piece in file.pieces:
            if isinstance(piece, Span):
                for _, records in attached(piece, state.flushed_sequence):
                    loads |= {at.id: at for at in records if at.table in state.tables}
    return Plan(state, loads, False)


class Rebuilder:
    """Makes the plan of a store whose manifest is lost.

    table: the default one's schema, where the caller says it.  salvage: takes files without a
    footer, too.  SchemaError when the schema is nowhere.
    """

    def __init__(
        self,
        files: Files,
        logs: Logs,
        table: TableRecord | None,
        salvage: bool,
        paced: Callable[[int], None],
    ) -> None:
        self.files = files
        self.logs = logs
        self.hints = logs.manifest.hints
        self.salvage = salvage
        self.paced = paced
        self.notes: list[str] = []
        self.guessed: set[int] = set()
        self.loads: dict[int, tuple[int, SegmentRecord]] = {}
        for file in logs.journal.files:
            for piece in file.pieces:
                if isinstance(piece, Span):
                    for sequence, records in attached(piece, 0):
                        self.loads |= {record.id: (sequence, record) for record in records}
        self.footers = self._footers()
        self.uuid = self._uuid()
        self.blobs = BlobFiles(files, self.uuid)
        self.tables = tables_of(logs, self.footers, self.uuid, table)
        self.shapes = {
            number: shape_of(self.footers, self.uuid, self.tables[number]) for number in self.tables
        }

    def plan(self) -> Plan:
        """All of it."""
        found = [
            candidate
            for number in sorted(self.footers)
            if (candidate := self._candidate(number)) is not None
        ]
        found = self._without_merged(found)
        found = self._without_uncommitted(found)
        self._date_loads(found)
        flushed = max(
            [
                self.hints.numbers.get("flushed_sequence", 0),
                *(found.last for found in found if found.number not in self.loads),
            ]
        )
        later = {number for number, (sequence, _) in self.loads.items() if sequence > flushed}
        records = self._in_order([found for found in found if found.number not in later])
        numbers = self.hints.numbers
        sequence = max([flushed, *(record.last_sequence for record in records)])
        state = State(
            self.uuid,
            generation=max(self.hints.generation, self.logs.journal.generation) + 1,
            sequence=sequence,
            flushed_sequence=flushed,
            epoch=max(numbers.get("epoch", 0), self.logs.journal.epoch),
            next_segment_id=max(
                [
                    numbers.get("next_segment_id", 1),
                    *(number + 1 for number in self.footers),
                    *(number + 1 for number in blob_numbers(self.logs.names)),
                ]
            ),
            # Beyond what was dropped, which frames of the journal may still name.
            next_table_id=max(
                numbers.get("next_table_id", 2),
                *(number + 1 for number in self.tables),
                *(number + 1 for number in self.hints.dropped),
            ),
            tables=self.tables,
            segments={record.id: record for record in records},
            options=self.hints.options,
        )
        loads = {number: self.loads[number][1] for number in later}
        attached_records = {
            number: record for number, record in loads.items() if record.table in self.tables
        }
        return Plan(state, attached_records, True, self.notes, self.guessed)

    # -- what is there

    def _footers(self) -> dict[int, Json | None]:
        result: dict[int, Json | None] = {}
        for number in segment_numbers(self.logs.names):
            data = read_pages(self.files, segment_name(number), self.paced)
            result[number] = find_footer(data, number)
        return result

    def _uuid(self) -> bytes:
        if self.hints.uuid is not None:
            return self.hints.uuid
        uuids = Counter(
            [footer["store_uuid"] for footer in self.footers.values() if footer is not None]
        )
        uuids.update(self.logs.journal.uuids)
        if not uuids and any(isinstance(piece, Span) for piece in self.logs.journal.pieces()):
            return os.urandom(16)  # the frames do not say it, and nothing else is left
        if not uuids:
            raise CorruptionError(
                f"{self.files.directory}: nothing is left that a store could be made of: neither a "
                "manifest nor a sound journal header nor a segment's footer",
                file=self.files.directory,
            )
        commonest: bytes = uuids.most_common(1)[0][0]
        return commonest

    def _table_of(self, number: int, footer: Json | None) -> int:
        """The table of a segment, by its own account or by what names it; the default one where
        nothing says it, which is that of a store with no other."""
        if footer is not None:
            return int(footer["table_id"])
        record = self.hints.records.get(number)
        if number in self.loads:
            record = self.loads[number][1]
        return DEFAULT_TABLE if record is None else record.table

    def _candidate(self, number: int) -> Candidate | None:
        footer = self.footers[number]
        name = segment_name(number)
        if footer is not None and footer["store_uuid"] != self.uuid:
            self.notes.append(f"{name} is another store's, and left out")
            return None
        table = self._table_of(number, footer)
        if table not in self.tables:
            why = "was dropped" if table in self.hints.dropped else "has a schema that nothing says"
            self.notes.append(f"{name} is of table {table}, which {why}: left out")
            return None
        record = self.hints.records.get(number)
        if number in self.loads:
            record = self.loads[number][1]
        if record is None and number in self.hints.removed:
            self.notes.append(f"{name} was merged away, and is left out")
            return None
        origin = Origin.from_bytes(footer["origin"]) if footer is not None else None
        if origin is not None and origin.made == RUN:
            self.notes.append(f"{name} is a part of a load that did not end, and left out")
            return None
        if footer is None and record is None and not self.salvage:
            self.notes.append(
                f"{name} has no footer and nothing names it: it was not finished, or is damaged at "
                "its end; left out (mode salvage takes it)"
            )
            return None
        named = record is not None
        if record is None:
            record = self._described(number, footer, table)
            if not record.rows and not record.markers:
                self.notes.append(f"{name} holds nothing that can be read, and is left out")
                return None
        result = Candidate(number, footer, origin, record, named)
        if footer is None and not named:
            self.guessed.add(number)
            self.notes.append(
                f"{name} has no footer and nothing names it: its rows are taken where no other "
                "segment has the key"
            )
            result.group = 0
            return result
        result.first, result.last = record.first_sequence, record.last_sequence
        result.group = 1 if self._made_for_base(result) else 2
        return result

    def _described(self, number: int, footer: Json | None, table: int) -> SegmentRecord:
        """The record of a segment that nothing names, as far as its file tells."""
        data = read_pages(self.files, segment_name(number), self.paced)
        looked = scan(data, number, self.shapes[table], blob_of=self.blobs.reader)
        lower, upper = bounds_of(looked, footer, self.key_width(table))
        return SegmentRecord(
            id=number,
            table=table,
            tier=TIER_NEW,
            lower=lower,
            upper=upper,
            rows=footer["entries"] if footer is not None else looked.rows,
            markers=footer["range_deletes"] if footer is not None else len(looked.markers),
            delete_markers=footer["delete_markers"] if footer is not None else 1,
            first_sequence=footer["first_sequence"] if footer is not None else 0,
            last_sequence=footer["last_sequence"] if footer is not None else 0,
            bytes=len(data),
            pages=len(data) // PAGE_BYTES,
            checksum=footer["checksum"] if footer is not None else 0,
            blobs=self._shares(looked),
        )

    def _shares(self, looked: SegmentScan) -> tuple[BlobShare, ...]:
        """What a segment that nothing names refers to in blob files, by its pointers."""
        known = {}
        for number in looked.pages.blob_uses():
            size, checksum = file_checksum(self.files, blob_name(number), self.paced)
            known[number] = size, checksum, max(size - PAGE_BYTES, 0)
        uses = sorted((number, *use) for number, use in looked.pages.blob_uses().items())
        return shares_of(uses, known)

    def _made_for_base(self, candidate: Candidate) -> bool:
        if candidate.named:
            return candidate.record.tier == TIER_BASE
        if candidate.origin is not None:
            return candidate.origin.tier == TIER_BASE
        footer = candidate.footer
        assert footer is not None
        return not (footer["filter_blocks"] or footer["delete_markers"] or footer["range_deletes"])

    # -- what counts

    def _without_merged(self, found: list[Candidate]) -> list[Candidate]:
        """Without what a merge replaced; files go only after the manifest says so, so where one of
        its inputs is gone, the merge counts."""
        dropped: set[int] = set()
        below: set[int] = set()
        for candidate in found:
            origin = candidate.origin
            if origin is None or origin.made != MERGE or not origin.inputs:
                continue
            if origin.inputs <= self.footers.keys():
                below |= origin.inputs
            else:
                dropped |= origin.inputs
        for candidate in found:
            if candidate.number in dropped:
                self.notes.append(f"{segment_name(candidate.number)} was merged away: left out")
            elif candidate.number in below:
                candidate.group = 0
        return [candidate for candidate in found if candidate.number not in dropped]

    def _without_uncommitted(self, found: list[Candidate]) -> list[Candidate]:
        """Without loads that the journal, which is there since before they began, does not name."""
        journal = self.logs.journal
        headers = [file.header for file in journal.files]
        since = headers[0].base_sequence if headers and headers[0] is not None else None
        kept = []
        for candidate in found:
            name = segment_name(candidate.number)
            is_load = candidate.footer is not None and candidate.last == 0
            if candidate.named or not is_load:
                kept.append(candidate)
                continue
            dated = candidate.origin is not None and candidate.origin.made == LOAD
            if dated and since is not None and since <= candidate.first and not journal.damaged():
                self.notes.append(f"{name} is of a load that was not committed, and left out")
                continue
            kept.append(candidate)
            self.notes.append(f"{name} is of a load that only the manifest could prove: taken")
        return kept

    def _date_loads(self, found: list[Candidate]) -> None:
        """The sequence of each load: the first after it began that no flush covers."""
        covered = [
            (candidate.first, candidate.last)
            for candidate in found
            if candidate.last and (candidate.origin is None or candidate.origin.made != MERGE)
        ]
        covered += [(sequence - 1, sequence) for sequence, _ in self.loads.values()]
        undated = [
            candidate for candidate in found if candidate.footer is not None and not candidate.last
        ]
        for began in sorted({candidate.first for candidate in undated}):
            sequence = began + 1
            while ends := [last for first, last in covered if first < sequence <= last]:
                sequence = max(ends) + 1
            group = [candidate for candidate in undated if candidate.first == began]
            for candidate in group:
                if candidate.origin is None:  # its footer does not say when it began
                    older = [other.last for other in found if other.number < candidate.number]
                    candidate.first = candidate.last = max([*older, 1])
                    self.guessed.add(candidate.number)
                else:
                    candidate.first = candidate.last = sequence
            covered.append((sequence - 1, sequence))

    def _in_order(self, found: list[Candidate]) -> list[SegmentRecord]:
        """Records, oldest first, with tiers and last sequences that say so.

        Groups: 0 what has been merged into a segment that is there, or is of no known age; 1 the
        last tier, which lies below all of tier 0; 2 tier 0.
        """
        covered: dict[int, Covered] = {}  # by table
        records: list[SegmentRecord] = []
        previous = (0, 0)
        for candidate in sorted(found, key=lambda at: (at.group, at.last, at.number)):
            made = replace(
                candidate.record, first_sequence=candidate.first, last_sequence=candidate.last
            )
            taken = covered.setdefault(made.table, Covered())
            marked = made.markers or made.delete_markers
            if not marked and not taken.overlaps(made.lower, made.upper):
                record = replace(made, tier=TIER_BASE)
            else:
                last = max(made.last_sequence, previous[0])
                if (last, made.id) < previous:
                    last += 1
                previous = (last, made.id)
                record = replace(made, tier=TIER_NEW, last_sequence=last)
            taken.add(made.lower, made.upper)
            records.append(record)
        return records

    def key_width(self, table: int) -> int:
        """Bytes of a fixed key; 0 in the variable form."""
        key, _ = codecs_of(self.tables[table])
        return key.width if key is not None else 0
