"""Backups: a store as it is at one commit, in a directory of its own, and the way back.

A backup is a store: a manifest, the segments and blob files that it names, and where it was made
beside a writer in another process, the journal up to its commit.  Files that never change are
linked, cloned or copied (cesium/transfer.py); journal files and the manifest are written anew.

1. The manifest is written last.  Until then the directory has none and does not open, or it has
   that of the backup before, with all that this one needs.
2. A directory in the making holds the file BACKUP.unfinished, so that it is not taken for an empty
   place for a new store, either.
3. Where the one or the other backup has a journal, the old manifest goes before the journals are
   exchanged: a crash in that moment leaves a directory that does not open, and that the next backup
   completes.
4. The manifest says of which state it is the backup (`options.backup`), so a backup that was opened
   and written to since is seen, and not overwritten.

Thread safety: any thread.  The destination's lock is held meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NoReturn

from cesium._frames import FILE_HEADER_BYTES
from cesium._segment import SegmentReader
from cesium.checkpoint import checkpoint_held
from cesium.copies import remove_store, rename_new
from cesium.directory import BACKUP_MARK, OWN_FILES, fingerprint, journals_of, names_of
from cesium.engine import StoreEngine
from cesium.errors import CorruptionError, Error
from cesium.events import event
from cesium.files import UNFINISHED, Files
from cesium.manifest import Manifest, manifest_name, numbers_of
from cesium.named import every_record, opened_at
from cesium.options import At
from cesium.pace import PAGE_BYTES
from cesium.progress import Progress, reporting
from cesium.reclaim import kept_readers
from cesium.scan_journal import Break, JournalScan, sequences
from cesium.scrub import Logs, scan_logs
from cesium.state import Json, SegmentRecord, State
from cesium.transfer import Transfer, parts_of
from cesium.verify import check_is_store, live_records, verify_directory

RESTORING = ".restoring"  # behind the name of a store in the making
Dest = str | os.PathLike[str] | Files
ATTEMPTS = 100  # beside a writer in another process, each in vain only where that removed files


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup, or a restore, did.

    path: of the destination.  sequence: of the last commit in it.  files: of the store at that
    commit.  linked_bytes, cloned_bytes, copied_bytes: of those that were put there now, by hard
    link, by sharing blocks (reflink), or as a copy; kept_bytes: of those that were there already.
    """

    path: str
    sequence: int
    files: int
    linked_bytes: int
    cloned_bytes: int
    copied_bytes: int
    kept_bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON's terms."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Moment:
    """A store at one commit.  journals: name, size and the bytes that count.  pins: keep files."""

    files: Files
    state: State
    records: list[SegmentRecord]
    sequence: int
    journals: list[tuple[str, int, memoryview]] = field(default_factory=list)
    pins: list[SegmentReader] = field(default_factory=list)


# --- what there is -----------------------------------------------------------


def _moment_of_engine(engine: StoreEngine) -> Moment:
    """An open store, checkpointed: its journal holds nothing that its segments do not."""
    with engine.exclusive_maintenance("a backup"):
        checkpoint_held(engine)
        state = engine.manifest.state
        pins = [*engine.segments(), *kept_readers(engine)]
    return Moment(engine.files, state, every_record(state), state.flushed_sequence, [], pins)


def _moment_at(engine: StoreEngine, at: At) -> Moment:
    """A named checkpoint that is open, as a store of its own, without a name."""
    then = replace(opened_at(engine.manifest.state, [], at, engine.path)[0], named={})
    return Moment(engine.files, then, [*then.segments.values()], then.sequence)


def _moment_of_files(files: Files) -> Moment:
    """The files as they lie there, whoever may be writing; CorruptionError for damage."""
    logs = scan_logs(files, lambda done: None)
    state = logs.manifest.state
    if state is None or logs.manifest.problems or logs.journal.damaged():
        _refuse_damage(files, logs)
    spans = [piece for piece in _counting(logs.journal) if not isinstance(piece, Break)]
    sequence = max([state.sequence, *(sequences(span)[1] for span in spans)])
    journals = _journals(files, logs.journal) if sequence > state.flushed_sequence else []
    return Moment(files, state, live_records(logs), sequence, journals)


def _counting(journal: JournalScan) -> list[Any]:
    pieces = journal.pieces()
    breaks = [place for place, piece in enumerate(pieces) if isinstance(piece, Break)]
    return pieces[: breaks[0]] if breaks else pieces


def _refuse_damage(files: Files, logs: Logs) -> NoReturn:
    found = [place.message for place in logs.manifest.problems]
    found += [
        piece.message
        for piece in logs.journal.pieces()
        if isinstance(piece, Break) and piece.damage
    ]
    message = found[0] if found else f"{files.directory}: there is no manifest"
    raise CorruptionError(
        f"{message}; nothing was backed up: verify names the damage, repair saves what is left",
        file=files.directory,
    )


def _journals(files: Files, journal: JournalScan) -> list[tuple[str, int, memoryview]]:
    """The files of the chain up to the first break, each as far as it counts."""
    found = []
    for file in journal.files:
        data, end = None, FILE_HEADER_BYTES
        broken = False
        for piece in file.pieces:
            broken = isinstance(piece, Break)
            if isinstance(piece, Break):
                break
            data, end = piece.data, piece.end
        if data is None:
            data, _ = files.read_sparse(file.name, limit=FILE_HEADER_BYTES)
        found.append((file.name, file.size, data.data[:end]))
        if broken:
            break
    return found


# --- what is there already ---------------------------------------------------


def _check_target(target: Files, moment: Moment, incremental: bool) -> list[str]:
    """The names in the destination; FileExistsError when they are nothing to go on from."""
    names = [name for name in target.list() if name != "LOCK"]
    own = [name for name in names if name != BACKUP_MARK]
    if not own:
        return names
    path = target.directory
    foreign = [name for name in own if not name.startswith(OWN_FILES)]
    if foreign:
        _refuse(path, f"it holds files that are not a store's, such as {foreign[0]!r}")
    if not incremental:
        _refuse(path, "it is not empty, and the backup is not to be incremental")
    manifest = Manifest.load(target, names)
    uuid = moment.state.store_uuid
    if manifest is None:
        mark = target.read_all(BACKUP_MARK, 64) if BACKUP_MARK in names else b"none"
        if mark not in (b"", uuid.hex().encode()):
            _refuse(path, "it holds files of another store, without a manifest")
        return names
    state = manifest.state
    if state.store_uuid != uuid:
        _refuse(path, "it is another store, or a backup of one")
    journals = sorted(name for name in journals_of(own) if not name.endswith(UNFINISHED))
    noted = state.options.get("backup")
    sequence = noted.get("sequence") if isinstance(noted, dict) else None
    if type(sequence) is not int or noted != _note(state, sequence, journals):
        _refuse(path, "it is a store of its own: no backup, or one that was written to since")
    if sequence > moment.sequence:
        _refuse(path, f"it has commits up to {sequence}, the store only up to {moment.sequence}")
    return names


def _note(state: State, sequence: int, journals: list[str]) -> Json:
    """What a backup's manifest says of it in `options.backup`: docs/format-manifest.md."""
    return {"generation": state.generation, "sequence": sequence, "journals": journals}


def _refuse(path: str, why: str) -> NoReturn:
    raise FileExistsError(errno.EEXIST, f"the destination is refused: {why}", path)


# --- writing -----------------------------------------------------------------


def _write(
    moment: Moment, target: Files, incremental: bool, links: bool, progress: Progress, what: str
) -> BackupReport:
    """Makes the directory of what there is; see the module."""
    started = time.perf_counter()
    if target.exists():
        _check_target(target, moment, incremental)  # before anything is put there, a lock included
    target.make_directory()
    lock = target.lock()
    try:
        if lock is not None:
            lock.sign()
        names = _check_target(target, moment, incremental)
        if BACKUP_MARK not in names:
            _put_small(target, BACKUP_MARK, moment.state.store_uuid.hex().encode())
            target.sync_directory()
        parts = parts_of(moment.records)
        pages = sum(part.bytes for part in parts) // PAGE_BYTES
        with reporting(what, pages, progress) as report:
            transfer = Transfer(moment.files, target, links, report or (lambda done: None))
            there = set(names)
            for part in parts:
                transfer.put(part, part.name in there)
        for name, size, data in moment.journals:
            _put_small(target, name + UNFINISHED, data, size)
        target.sync_directory()
        _commit(moment, target, names, what == "restoring")
        _tidy(target, {part.name for part in parts} | {name for name, _, _ in moment.journals})
    finally:
        if lock is not None:
            lock.release()
    small = sum(len(data) for _, _, data in moment.journals)
    return BackupReport(
        target.directory, moment.sequence, transfer.files + len(moment.journals) + 1,
        transfer.linked_bytes, transfer.cloned_bytes, transfer.copied_bytes + small,
        transfer.kept_bytes, time.perf_counter() - started,
    )  # fmt: skip


def _put_small(target: Files, name: str, data: bytes | memoryview, size: int = 0) -> None:
    path = target.path(name)
    fd = target.create(name, size)
    try:
        target.write_all(fd, data, 0, path)
        target.sync_file(fd, path)
    finally:
        target.close(fd)


def _commit(moment: Moment, target: Files, names: list[str], restoring: bool) -> None:
    """Exchanges journals and manifest: from here on the directory is the new backup."""
    new = sorted(name for name, _, _ in moment.journals)
    old = [name for name in journals_of(names) if not name.endswith(UNFINISHED)]
    if old or new:
        for number in numbers_of(names, "manifest"):
            target.unlink(manifest_name(number))
        target.sync_directory()
        for name in old:
            target.unlink(name)
        for name in new:
            target.rename(name + UNFINISHED, name)
        target.sync_directory()
    options = {name: value for name, value in moment.state.options.items() if name != "backup"}
    if not restoring:
        options["backup"] = _note(moment.state, moment.sequence, new)
    Manifest.create(target, replace(moment.state, options=options)).close()


def _tidy(target: Files, wanted: set[str]) -> None:
    """Removes what this backup does not name; a next one would, too."""
    newest = numbers_of(target.list(), "manifest")[-1]
    wanted |= {manifest_name(newest), "LOCK", BACKUP_MARK}
    with contextlib.suppress(OSError):
        target.remove(*(name for name in target.list() if name not in wanted))
        target.sync_directory()
        target.unlink(BACKUP_MARK)  # the last: it explains the others
        target.sync_directory()


# --- what is offered ---------------------------------------------------------


def backup(
    engine: StoreEngine,
    dest: Dest,
    incremental: bool = True,
    links: bool = True,
    progress: Progress = False,
) -> BackupReport:
    """See `Store.backup`.  dest: a directory, or the files to write to."""
    at = engine.options.at
    if not engine.writable and at is None:
        return backup_directory(engine.files, dest, incremental, links, progress)
    target = _target_of(engine.files, dest)
    with event(engine, "backup") as facts:
        moment = _moment_of_engine(engine) if at is None else _moment_at(engine, at)
        report = _write(moment, target, incremental, links, progress, "backing up")
        facts["sequence"] = report.sequence
        facts["files"] = report.files
        facts["bytes_shared"] = report.linked_bytes + report.cloned_bytes
        facts["bytes_copied"] = report.copied_bytes
    return report


def backup_directory(
    source: Dest,
    dest: Dest,
    incremental: bool = True,
    links: bool = True,
    progress: Progress = False,
) -> BackupReport:
    """Backs up the store in a directory as it lies there, also beside a writer; it is not opened.

    Arguments, result and errors as of `Store.backup`; FileNotFoundError when no store is there.
    """
    files = source if isinstance(source, Files) else Files(source)
    check_is_store(files)
    return _from_files(files, _target_of(files, dest), incremental, links, progress, "backing up")


def restore(
    backup: str | os.PathLike[str],
    path: str | os.PathLike[str],
    links: bool = True,
    progress: Progress = False,
) -> BackupReport:
    """Makes a store of a backup, at a path where nothing is; the backup stays as it is.

    All of it is read back and checked before the store gets its name.  links: False copies bytes
    even where they could be shared.  Errors: FileExistsError (something is there), CorruptionError
    (the backup is damaged, or was not finished), FileNotFoundError (no backup).
    """
    source = Files(backup)
    names = names_of(source)
    if BACKUP_MARK in names and not numbers_of(names, "manifest"):
        raise CorruptionError(
            f"{source.directory} is a backup that was not finished: make it again",
            file=source.directory,
        )
    check_is_store(source)
    target = os.path.abspath(os.fspath(path))
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "something is there already", target)
    making = _target_of(source, target + RESTORING)
    _clear(making)
    try:
        report = _from_files(source, making, False, links, progress, "restoring")
        pages = sum(making.size(name) for name in making.list()) // PAGE_BYTES
        with reporting("verifying", pages, progress) as advance:
            found = verify_directory(making.directory, advance)
        if not found.ok:
            first = found.problems[0]
            raise CorruptionError(
                f"the backup is damaged: {first.message}", file=first.file, offset=first.offset
            )
        rename_new(making.directory, target)
    except BaseException:
        with contextlib.suppress(OSError):
            _clear(making)
        raise
    return replace(report, path=target)


def _clear(making: Files) -> None:
    """Removes what a restore that was interrupted left."""
    if making.exists():
        making.remove(BACKUP_MARK)
        remove_store(making.directory)


def _target_of(source: Files, dest: Dest) -> Files:
    target = dest if isinstance(dest, Files) else Files(dest)
    if source.has_paths and target.has_paths:
        home, away = os.path.realpath(source.directory), os.path.realpath(target.directory)
        if away == home or away.startswith(home + os.sep):
            raise ValueError(f"{target.directory} is in the store that is backed up")
    return target


def _from_files(
    files: Files, target: Files, incremental: bool, links: bool, progress: Progress, what: str
) -> BackupReport:
    """Again where another process removed files meanwhile; what is there by then is kept."""
    for attempt in range(ATTEMPTS):
        before = fingerprint(files)
        moment = _moment_of_files(files)
        try:
            return _write(moment, target, incremental or attempt > 0, links, progress, what)
        except FileNotFoundError as error:
            name = str(error.filename or "")
            if not name.startswith(files.directory + os.sep):
                raise
            if fingerprint(files) == before:
                raise CorruptionError(f"{name}: the file is missing", file=name) from error
    raise Error(f"{files.directory}: files come and go too fast to be backed up")
