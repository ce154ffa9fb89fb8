"""Repair: the best store that the bytes of a damaged one allow, beside it or in its place.

`repair` reads the damaged store and never changes it: it builds a new one in a directory of its own
(hard links where a segment is sound), verifies that, and only then gives it its name.  In place,
a backup is made first, and the two directories are swapped in one step.  A repair that is
interrupted leaves the original as it was, and may be run again.  docs/repair.md says what each mode
makes of each kind of damage.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from cesium._page import TableShape
from cesium._segment import UNBOUNDED_UPPER
from cesium.copies import back_up, exchange, remove_store, rename_new
from cesium.errors import CorruptionError, SchemaError
from cesium.files import Files
from cesium.frames import Span
from cesium.lock import WriterLock
from cesium.named import every_record, tables_of
from cesium.pace import Pace
from cesium.rebuild import Plan, Rebuilder, known_plan
from cesium.report import Problem
from cesium.salvage import LOST, REWRITTEN, Applied, Kind, Part, Salvager
from cesium.scan_journal import sequences
from cesium.scan_segment import Keys
from cesium.schema import codecs_of, shape_of_codecs, table_of
from cesium.scrub import Logs, counting_spans, scan_logs
from cesium.state import DEFAULT_TABLE, SegmentRecord, State, TableRecord
from cesium.verify import Scrubber, check_is_store, log_reports, own_shape

BACKING_UP = ".backing-up"  # behind the name of a backup in the making
STRICT, POINT_IN_TIME, SALVAGE = MODES = ("strict", "point-in-time", "salvage")


@dataclass(frozen=True, slots=True)
class Doubt:
    """An interval of keys in which the repaired store is not what was written.

    keys: the first and the last key that may be affected, None for an end that nobody knows.
    stale: whether older values, or deleted rows, may be back there; else rows are missing only.
    rows: how many are lost there, None where nobody can count them.
    """

    file: str
    keys: tuple[Any, Any]
    stale: bool
    rows: int | None


@dataclass(slots=True)
class RepairReport:
    """What became of a store.

    path: of the repaired store, None when it was sound and stayed where it is.  backup: of the
    original, when it was repaired in place.  manifest: "kept" or "rebuilt".  segments: file,
    outcome ("kept", "rewritten" without what is bad, "lost"), rows kept and lost (None: nobody can
    count them).  frames_applied, frames_left: of the journal; left were sound ones behind the
    place where the journal stopped.  sequence: of the last commit in it.  rows: in it.
    """

    source: str
    mode: str
    path: str | None = None
    backup: str | None = None
    manifest: str = "kept"
    rows: int = 0
    sequence: int = 0
    segments: list[dict[str, Any]] = field(default_factory=list)
    frames_applied: int = 0
    frames_left: int = 0
    journal_stopped: str | None = None
    problems: list[Problem] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was damaged."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON's terms, but for the keys, which are the store's own."""
        return {"ok": self.ok, **asdict(self)}


def repair(
    path: str | os.PathLike[str],
    dest: str | os.PathLike[str] | None = None,
    *,
    mode: str = POINT_IN_TIME,
    in_place: bool = False,
    key: Any = None,
    value: Any = None,
    progress: Callable[[int], None] | None = None,
) -> RepairReport:
    """Builds the best store that the bytes of a damaged one allow; the original stays as it is.

    dest: where to (path + ".repaired").  in_place: puts it in the original's place, which is kept
    as a backup.  mode: "strict" refuses any damage, "point-in-time" stops at the first damage of
    the journal, "salvage" goes on behind it.  key, value: the schema, as for `cesium.open`, where
    the manifest is lost and nothing else says it.  progress: called with the pages read.

    Errors: CorruptionError (mode "strict", or nothing is left), LockedError (somebody writes),
    SchemaError (the schema is lost), FileExistsError (dest is there), FileNotFoundError.
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(map(repr, MODES))}, not {mode!r}")
    if in_place and dest is not None:
        raise ValueError("a store is repaired in place or to a destination, not both")
    # Directories are swapped in place, so a link to one is followed first.
    source = Files(os.path.realpath(path) if in_place else path)
    check_is_store(source)
    target = os.path.abspath(os.fspath(dest) if dest else source.directory + ".repaired")
    if not in_place and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "the destination is there already", target)
    making = (source.directory if in_place else target) + ".repairing"
    with _locked(source, in_place):
        remove_store(making)  # of a repair that was interrupted
        if in_place:
            remove_store(source.directory + BACKING_UP)
        return _repair(source, target, making, mode, in_place, _table(key, value), progress)


@contextlib.contextmanager
def _locked(source: Files, in_place: bool) -> Any:
    """Holds the writer's lock.  A store without the file has no writer; none is made for it."""
    lock: WriterLock | None = None
    if in_place or "LOCK" in source.list():
        try:
            lock = source.lock()
            if lock is not None:
                lock.sign()
        except OSError as error:
            if in_place or error.errno != errno.EROFS:
                raise
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _table(key: Any, value: Any) -> TableRecord | None:
    if key is None:
        if value is not None:
            raise ValueError("a schema has a key, too: key=...")
        return None
    return table_of("", key, "bytes" if value is None else value)


def _repair(
    source: Files,
    target: str,
    making: str,
    mode: str,
    in_place: bool,
    table: TableRecord | None,
    progress: Callable[[int], None] | None,
) -> RepairReport:
    pace = Pace(None, progress)
    logs = scan_logs(source, pace)
    report = RepairReport(source.directory, mode)
    found = log_reports(source, logs, pace)
    report.problems += [problem for at in found for problem in at.problems]
    report.notes += [note for at in found for note in at.notes]
    if mode == STRICT and report.problems:
        _refuse(source, report)
    plan = _plan(source, logs, table, mode)
    report.manifest = "rebuilt" if plan.rebuilt else "kept"
    report.notes += plan.notes
    if plan.rebuilt and logs.manifest.hints.named:
        names = ", ".join(map(repr, logs.manifest.hints.named))
        report.notes.append(f"named checkpoints are lost with the manifest: {names}")
    salvager = Salvager(source, Files(making), plan, _kinds(source, plan), mode == SALVAGE)
    salvager.look(pace)
    for part in salvager.parts.values():
        report.problems += part.report.problems
    if mode == STRICT and report.problems:
        _refuse(source, report)
    _note_doubts(report, salvager)
    if in_place and report.ok and not (mode == SALVAGE and _goes_on(logs)):
        _describe(report, salvager, None)
        report.notes.append("nothing is damaged: the store was left as it is")
        report.sequence = _sequence(plan.state, logs)
        return report
    os.mkdir(making)
    try:
        applied, report.rows, report.sequence = salvager.build(logs.journal)
    except BaseException:
        remove_store(making)
        raise
    _describe(report, salvager, applied)
    report.notes += salvager.notes
    if mode == STRICT and report.problems:
        remove_store(making)
        _refuse(source, report)
    if in_place:
        report.backup = _backup_path(source.directory)
        back_up(source, source.directory + BACKING_UP)
        rename_new(source.directory + BACKING_UP, report.backup)
        exchange(making, source.directory)
        remove_store(making)  # the original, of which the backup has all
        report.path = source.directory
    else:
        rename_new(making, target)
        report.path = target
    return report


def _refuse(source: Files, report: RepairReport) -> None:
    first = report.problems[0]
    raise CorruptionError(
        f"{source.directory}: {len(report.problems)} places are damaged, the first: "
        f"{first.message}; mode 'strict' repairs nothing",
        file=first.file,
        offset=first.offset,
        keys=first.keys,
    )


def _plan(source: Files, logs: Logs, table: TableRecord | None, mode: str) -> Plan:
    if logs.manifest.state is None:
        return Rebuilder(source, logs, table, mode == SALVAGE, lambda done: None).plan()
    if table is not None:
        stored = logs.manifest.state.tables[DEFAULT_TABLE]
        if (stored.key, stored.value) != (table.key, table.value):
            raise SchemaError(
                f"the store has key={stored.key!r}, value={stored.value!r}, not "
                f"key={table.key!r}, value={table.value!r}"
            )
    return known_plan(logs)


def _kinds(source: Files, plan: Plan) -> dict[int, Kind]:
    """What the rows of each table are: by its schema, or by a footer where that needs a user's
    codec."""
    records = [*every_record(plan.state), *plan.attached.values()]
    return {
        number: Kind(_shape(source, table, records), codecs_of(table)[0])
        for number, table in tables_of(plan.state).items()
    }


def _shape(source: Files, table: TableRecord, records: list[SegmentRecord]) -> TableShape:
    shape = shape_of_codecs(*codecs_of(table))
    for record in records:
        if shape is not None:
            break
        if record.table == table.id:
            with contextlib.suppress(FileNotFoundError):
                shape = own_shape(source, record.id)
    return shape if shape is not None else TableShape(0, 0)


def _sequence(state: State, logs: Logs) -> int:
    return max([state.sequence, *(sequences(span)[1] for span in counting_spans(logs.journal))])


def _goes_on(logs: Logs) -> bool:
    """Whether sound commits lie behind the place where the journal ends for others."""
    pieces = logs.journal.pieces()
    return len(counting_spans(logs.journal)) < sum(isinstance(piece, Span) for piece in pieces)


def _backup_path(path: str) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    wanted = f"{path}.backup-{stamp}"
    number = 1
    while os.path.lexists(wanted):
        number += 1
        wanted = f"{path}.backup-{stamp}-{number}"
    return wanted


def _describe(report: RepairReport, salvager: Salvager, applied: Applied | None) -> None:
    for part in salvager.parts.values():
        if part.made or applied is None:
            report.segments.append(
                {
                    "file": os.path.basename(part.report.file),
                    "outcome": part.outcome,
                    "rows": part.rows,
                    "rows_lost": part.lost,
                }
            )
    if applied is not None:
        report.problems += applied.problems
        report.frames_applied = applied.frames
        report.frames_left = applied.left
        if applied.left:
            report.journal_stopped = applied.stopped


def _note_doubts(report: RepairReport, salvager: Salvager) -> None:
    """The intervals in which rows are missing, and whether something older shows there."""
    scrubbers = {
        number: Scrubber(salvager.source, lambda done: None, kind.keys, kind.shape)
        for number, kind in salvager.kinds.items()
    }
    older_of: dict[int, list[SegmentRecord]] = {}
    for record in salvager.order():
        scrubber = scrubbers[record.table]
        older = older_of.setdefault(record.table, [])
        part = salvager.parts[record.id]
        whole = (record.lower, None if record.upper == UNBOUNDED_UPPER else record.upper)
        if part.outcome == LOST:
            _doubt(report, scrubber, part, whole, older, record.rows)
        elif part.outcome == REWRITTEN and part.looked is not None:
            for page in part.looked.bad:
                if page.part == "range-delete":
                    continue
                if page.keys is not None:
                    _doubt(report, scrubber, part, _bytes_of(page.keys), older, page.rows)
        if part.outcome == REWRITTEN and part.looked is not None and part.looked.markers_lost:
            _doubt(report, scrubber, part, whole, older, None)
        older.append(record)


def _doubt(
    report: RepairReport,
    scrubber: Scrubber,
    part: Part,
    keys: tuple[bytes | None, bytes | None],
    older: list[SegmentRecord],
    rows: int | None,
) -> None:
    lower, upper = keys
    stale = any(
        (upper is None or record.lower <= upper) and (lower is None or lower <= record.upper)
        for record in older
    )
    decoded = scrubber.interval(_encoded(keys, scrubber))
    assert decoded is not None
    report.doubts.append(Doubt(os.path.basename(part.report.file), decoded, stale, rows))


def _bytes_of(keys: Keys) -> tuple[bytes | None, bytes | None]:
    lower, upper = (end.to_bytes(8, "big") if isinstance(end, int) else end for end in keys)
    return lower, upper


def _encoded(keys: tuple[bytes | None, bytes | None], scrubber: Scrubber) -> Keys:
    if scrubber.keys is None or not scrubber.keys.width:
        return keys
    lower, upper = (None if end is None else int.from_bytes(end, "big") for end in keys)
    return lower, upper
