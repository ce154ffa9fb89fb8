"""Scrub: read every page and every frame of a store from the drive and check all of it.

`verify` does so for an open store, whose segments its version pins; `verify_directory` for one that
need not even open.  Both write nothing and take no lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from cesium._keys import KeyCodec
from cesium._page import TableShape
from cesium._segment import UNBOUNDED_UPPER, SegmentReader
from cesium.blob_files import BlobFiles
from cesium.directory import OWN_FILES, segment_name, segment_numbers
from cesium.engine import StoreEngine
from cesium.errors import CorruptionError, Error
from cesium.files import Files
from cesium.journal_reader import check_kept
from cesium.manifest import Manifest
from cesium.named import every_record, named_records, tables_of
from cesium.options import parse_rate
from cesium.origin import Origin
from cesium.pace import PAGE_BYTES, Pace
from cesium.reclaim import kept_readers
from cesium.report import FileReport, Problem, Report
from cesium.scan_journal import Break
from cesium.scan_segment import (
    BLOB_PART,
    BadPage,
    Encoded,
    Keys,
    SegmentScan,
    find_footer,
    read_pages,
    scan,
    shape_of,
)
from cesium.scan_values import FileProblems, bad_values
from cesium.schema import codecs_of, shape_of_codecs, shape_of_table
from cesium.scrub import Logs, attached, counting_spans, scan_logs
from cesium.state import SegmentRecord, TableRecord

Progress = Callable[[int], None]


def verify(
    engine: StoreEngine, progress: Progress | None = None, rate: int | str | None = None
) -> Report:
    """Checks all that an open store consists of; progress is called with the pages read.

    rate: bytes a second, or a text such as "200MB/s", that are read at most.
    """
    pace = Pace(parse_rate(rate), progress)
    # Holding the readers pins the files.
    segments = [(table, table.segments()) for table in engine.tables.values()]
    logs = scan_logs(engine.files, pace)
    details = [*log_reports(engine.files, logs, pace)]
    for table, readers in segments:
        keys = table.known_codecs[0]
        scrubber = Scrubber(engine.files, pace, keys, table.shape)
        details += [scrubber.segment(reader) for reader in readers]
    details += _of_checkpoints(engine, pace)
    return report_of(details)


def _of_checkpoints(engine: StoreEngine, pace: Pace) -> Iterator[FileReport]:
    """The segments of named checkpoints alone, but those that another process has dropped since."""
    if engine.options.at is not None:
        return  # one checkpoint is what is open
    tables = tables_of(engine.manifest.state)
    for reader in kept_readers(engine):
        if not engine.writable and not engine.files.exists(reader.name):
            manifest = Manifest.load(engine.files)
            named = [] if manifest is None else named_records(manifest.state)
            if all(record.id != reader.record.id for record in named):
                continue
        keys, _ = codecs_of(tables[reader.record.table])
        shape = shape_of_table(tables[reader.record.table], engine.slots_max)
        yield Scrubber(engine.files, pace, keys, shape).segment(reader)


def verify_directory(
    path: str | os.PathLike[str],
    progress: Progress | None = None,
    rate: int | str | None = None,
) -> Report:
    """Checks the store in a directory, file by file, whether it opens or not.

    FileNotFoundError when there is none.  Error names what this version cannot read.
    """
    pace = Pace(parse_rate(rate), progress)
    files = Files(path)
    check_is_store(files)
    logs = scan_logs(files, pace)
    details = log_reports(files, logs, pace)
    if logs.manifest.state is None:
        details += _segments_by_footer(files, logs, pace)
        return report_of(details)
    done: dict[int, FileReport] = {}
    for attempt in range(20):
        wanted = [record for record in live_records(logs) if record.id not in done]
        gone = _segments_by_record(files, logs, wanted, done, pace)
        if not gone:
            break
        logs = scan_logs(files, Pace())  # merged away meanwhile, if the new manifest says so
        names = {record.id for record in live_records(logs)}
        if attempt == 19 or any(record.id in names for record in gone):
            for record in gone:
                if record.id in names:
                    done[record.id] = _missing(files, logs, record)
    return report_of([*details, *(done[number] for number in sorted(done))])


def check_is_store(files: Files) -> None:
    """FileNotFoundError when a directory holds no file of a store."""
    if not files.exists():
        raise FileNotFoundError(f"there is no store at {files.directory}")
    if not any(name.startswith(OWN_FILES[1:]) for name in files.list()):
        raise FileNotFoundError(f"there is no store at {files.directory}: none of its files")


def report_of(details: list[FileReport]) -> Report:
    """The sum of the files' reports."""
    problems = [problem for detail in details for problem in detail.problems]
    return Report(
        len(details),
        sum(detail.pages for detail in details),
        problems,
        sum(detail.frames for detail in details),
        details,
    )


def log_reports(files: Files, logs: Logs, pace: Pace) -> list[FileReport]:
    """What was found in manifest and journal."""
    manifest = logs.manifest
    path = files.path(manifest.name or "manifest-000001")
    first = FileReport(path, "manifest", manifest.bytes, frames=manifest.frames)
    first.problems = [Problem(path, None, at.message, at.offset) for at in manifest.problems]
    first.notes = [f"at {at.offset}: {at.message}" for at in manifest.notes]
    reports = [first]
    for file in logs.journal.files:
        path = files.path(file.name)
        report = FileReport(path, "journal", file.size, frames=file.frames)
        for piece in file.pieces:
            if isinstance(piece, Break) and piece.damage:
                report.problems.append(Problem(path, None, piece.message, piece.offset))
            elif isinstance(piece, Break):
                report.notes.append(piece.message)
        reports.append(report)
    state = manifest.state
    uuid = manifest.hints.uuid if state is None else state.store_uuid
    for path, size, frames, message in check_kept(files, logs.names, uuid, pace):
        report = FileReport(path, "journal", size, frames=frames)
        report.problems = [Problem(path, None, message)] if message is not None else []
        reports.append(report)
    for number in logs.journal.dead:
        reports[0].notes.append(f"journal-{number:06d} does not count: it follows a hole")
    return reports


def live_records(logs: Logs) -> list[SegmentRecord]:
    """The segments that an opening would make visible, at a named version, too: the manifest's and
    those attached since, but for tables that were dropped since.
    """
    state = logs.manifest.state
    assert state is not None
    records = {record.id: record for record in every_record(state)}
    for span in counting_spans(logs.journal):
        for _, loaded in attached(span, state.flushed_sequence):
            records |= {record.id: record for record in loaded if record.table in state.tables}
    return list(records.values())


class Scrubber:
    """Reads segments; keys: None shows them encoded."""

    def __init__(
        self, files: Files, pace: Callable[[int], None], keys: KeyCodec | None, shape: TableShape
    ) -> None:
        self.files = files
        self.pace = pace
        self.keys = keys
        self.shape = shape
        self.blob_problems: FileProblems = {}

    def segment(self, reader: SegmentReader) -> FileReport:
        """One segment, from the drive and then through its mapping."""
        record = reader.record
        report = FileReport(reader.path, "segment", record.bytes, record.pages, rows=record.rows)
        found: list[tuple[int | None, str]] = []
        try:
            for page, what, expected, wrong in reader.verify(self.pace):
                found.append((page, f"{what} (expected {expected}, found {wrong})"))
        except CorruptionError as error:
            at = None if error.offset is None else error.offset // PAGE_BYTES
            found.append((at, str(error)))
        except (Error, OSError) as error:
            found.append((None, str(error)))
        if found:
            self._explain(reader, report, found)
        self._values(reader, report)
        return report

    def _values(self, reader: SegmentReader, report: FileReport) -> None:
        """What cannot be read of the segment's values in blob files."""
        whole = record_keys(reader.record, self.shape, self.keys)
        with contextlib.suppress(Error, OSError):  # what kept it from being mapped is told above
            for bad in bad_values(reader, self.blob_problems, self.pace):
                keys = whole if bad.rows and bad.keys is None else bad.keys
                report.problems.append(
                    Problem(bad.path, None, bad.message, bad.offset, self.interval(keys), bad.rows)
                )
                readable = report.rows if report.readable_rows is None else report.readable_rows
                if bad.rows and readable is not None:
                    report.readable_rows = max(readable - bad.rows, 0)

    def _explain(
        self, reader: SegmentReader, report: FileReport, found: list[tuple[int | None, str]]
    ) -> None:
        """What the problems of a segment mean for its keys and rows."""
        looked: SegmentScan | None = None
        bad = {page for page, _ in found if page is not None}
        with contextlib.suppress(OSError, Error):
            data = read_pages(self.files, reader.name, lambda done: None)
            looked = scan(
                data, reader.record.id, self.shape, reader.record.rows, bad, reader.record.pages,
                {blob.id: blob for blob in reader.blobs}.get,
            )  # fmt: skip
        if looked is None:
            keys = self.interval(record_keys(reader.record, self.shape, self.keys))
            report.problems = [
                Problem(report.file, page, message, _offset(page), keys, report.rows)
                for page, message in found
            ]
            report.readable_pages = report.readable_rows = 0
            return
        known = {page.number: page for page in looked.bad if page.part != BLOB_PART}
        bad_pages = len(known)
        for page, message in found:
            place = known.pop(page, None) if page is not None else None
            if place is None:
                report.problems.append(Problem(report.file, page, message, _offset(page)))
            else:
                report.problems.append(
                    Problem(
                        report.file, page, f"{message}, in the {place.part} part", _offset(page),
                        self.interval(place.keys), place.rows,
                    )
                )  # fmt: skip
        # Those cut off.
        report.problems += [self.bad_page(report.file, place) for place in known.values()]
        report.readable_pages = max(reader.record.pages - bad_pages, 0)
        # Without those whose values in blob files are bad, which are counted there.
        report.readable_rows = looked.rows + sum(page.part == BLOB_PART for page in looked.bad)

    def bad_page(self, path: str, place: BadPage) -> Problem:
        """What a scan says of a page."""
        return Problem(
            path, place.number, f"a bad page, in the {place.part} part", _offset(place.number),
            self.interval(place.keys), place.rows,
        )  # fmt: skip

    def interval(self, keys: Keys | None) -> tuple[Any, Any] | None:
        """The keys as the store's own."""
        return None if keys is None else (self.key(keys[0]), self.key(keys[1]))

    def key(self, encoded: Encoded | None) -> Any:
        """One key decoded, or as it is where that cannot be."""
        if encoded is None or self.keys is None:
            return encoded
        with contextlib.suppress(Exception):
            return self.keys.decode_key(encoded)
        return encoded


def _offset(page: int | None) -> int | None:
    return None if page is None else page * PAGE_BYTES


def record_keys(record: SegmentRecord, shape: TableShape, keys: KeyCodec | None) -> Keys:
    """The interval of a record's keys, encoded."""
    if keys is not None and keys.width:
        return int.from_bytes(record.lower, "big"), int.from_bytes(record.upper, "big")
    return record.lower, None if record.upper == UNBOUNDED_UPPER else record.upper


def _segments_by_record(
    files: Files,
    logs: Logs,
    wanted: list[SegmentRecord],
    done: dict[int, FileReport],
    pace: Pace,
) -> list[SegmentRecord]:
    """Scrubs segments into `done`; returns those whose file is not there."""
    state = logs.manifest.state
    assert state is not None
    gone = []
    tables = tables_of(state)
    for record in wanted:
        keys, values = codecs_of(tables.get(record.table))
        name = segment_name(record.id)
        try:
            shape = shape_of_codecs(keys, values) or own_shape(files, record.id)
            blobs = BlobFiles(files, state.store_uuid).readers(record)
            reader = SegmentReader(record, files, name, shape, state.store_uuid, blobs)
            reader.map()
            for blob in blobs:
                blob.map()
        except FileNotFoundError:
            gone.append(record)
            continue
        except (Error, OSError):
            pass  # told below
        except ValueError as error:
            done[record.id] = FileReport(files.path(name), "segment", rows=record.rows)
            done[record.id].problems.append(Problem(files.path(name), None, str(error)))
            continue
        done[record.id] = Scrubber(files, pace, keys, shape).segment(reader)
    return gone


def own_shape(files: Files, segment_id: int) -> TableShape:
    """The shape that a segment's own footer says, where the schema needs a user's codec."""
    data = read_pages(files, segment_name(segment_id), lambda done: None)
    footer = find_footer(data, segment_id)
    return TableShape(0, 0) if footer is None else shape_of(footer)


def _missing(files: Files, logs: Logs, record: SegmentRecord) -> FileReport:
    state = logs.manifest.state
    table = tables_of(state).get(record.table) if state is not None else None
    keys, _ = codecs_of(table)
    path = files.path(segment_name(record.id))
    report = FileReport(path, "segment", rows=record.rows, readable_pages=0, readable_rows=0)
    scrubber = Scrubber(files, lambda done: None, keys, TableShape(0, 0))
    interval = scrubber.interval(record_keys(record, TableShape(0, 0), keys))
    report.problems.append(
        Problem(path, None, f"{path}: the file is missing", None, interval, record.rows)
    )
    return report


def _segments_by_footer(files: Files, logs: Logs, pace: Pace) -> list[FileReport]:
    """Every segment file by its own account, for a store whose manifest is lost."""
    reports = []
    for number in segment_numbers(logs.names):
        path = files.path(segment_name(number))
        report = FileReport(path, "segment")
        reports.append(report)
        try:
            data = read_pages(files, segment_name(number), pace)
            footer = find_footer(data, number)
        except FileNotFoundError:
            report.notes.append("it went while the store was being read")
            continue
        report.bytes, report.pages = len(data), len(data) // PAGE_BYTES
        if footer is None:
            report.problems.append(Problem(path, None, "there is no sound footer"))
            continue
        table = _table_of(logs, footer)
        try:
            blobs = BlobFiles(files, footer["store_uuid"])
            looked = scan(data, number, shape_of(footer), blob_of=blobs.reader)
        except ValueError as error:
            report.problems.append(Problem(path, None, f"the footer makes no sense: {error}"))
            continue
        report.rows = footer["entries"]
        scrubber = Scrubber(files, pace, codecs_of(table)[0], shape_of(footer))
        report.problems += [scrubber.bad_page(path, place) for place in looked.bad]
        if looked.bad:
            report.readable_pages = report.pages - len(looked.bad)
            report.readable_rows = looked.rows
    return reports


def _table_of(logs: Logs, footer: dict[str, Any]) -> TableRecord | None:
    origin = Origin.from_bytes(footer["origin"])
    if origin is not None and origin.table is not None:
        return origin.table
    return logs.manifest.hints.tables.get(footer["table_id"])
