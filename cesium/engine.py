"""One open store in this process: its files, lock, journal, manifest, and the compiled engine.

Handles (cesium.store.Store) on the same path share one StoreEngine, which is counted.  It answers
the compiled engine's calls for a journal file and for room in the memtable.

Locks, in the order taken: `opening_lock` (one store is opened at a time), `merging` (one merge at a
time, for as long as it takes), `maintenance` (whatever changes which segments there are: flush,
checkpoint, the end of a merge, close), then the compiled writer lock.  `registry_lock` is the
innermost, and held only to count a handle.  All of Python's are RLocks, for a signal handler or a
collected handle may come in the midst of what holds them: counting stands that, opening another
store too, and maintenance of the same store refuses it.

What happens to the sources of a table's version, happens under the writer lock, by identity: a
frozen memtable, a segment; so a load that attaches while a merge runs is never lost.

Tables share the journal, so their memtables are frozen together, at one commit: once all that were
frozen by a commit are written out, the journal up to it can go, whatever tables were idle.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol
from weakref import WeakValueDictionary

from cesium._engine import Engine, TableCore, WriteGuard, freeze_tables
from cesium._journal import JournalWriter
from cesium._memtable import MemtableSnapshot
from cesium._ranges import View
from cesium._segment import SegmentReader
from cesium._turn import Turn
from cesium._version import Version
from cesium.background import Background, Quiet, Speed
from cesium.blob_files import BlobFiles
from cesium.collector import collector_paused
from cesium.directory import (
    blob_numbers,
    check_own,
    journals_of,
    names_of,
    segment_numbers,
)
from cesium.durability import tell_unseen_failure
from cesium.errors import CorruptionError
from cesium.events import event
from cesium.exclusion import Exclusive
from cesium.file_system import warn_once
from cesium.files import UNFINISHED, Files, MemoryFiles
from cesium.host import EngineHost
from cesium.journal import Journal
from cesium.lock import WriterLock, is_signed
from cesium.manifest import Manifest, numbers_of
from cesium.named import named_records, opened_at
from cesium.options import Options
from cesium.recovery import apply_journal, journal_of
from cesium.refreshing import Standing, open_beside_writer
from cesium.schema import new_table
from cesium.state import DEFAULT_TABLE, Edit, State, TableRecord, segments_by_table
from cesium.syncing import IntervalSync
from cesium.table_engine import TableEngine
from cesium.upkeep import Upkeep, poisoning


class Pins(Protocol):
    """What a snapshot is here."""

    def views(self) -> list[View]:
        """What it reads, of each table; ClosedError once it is closed."""


class StoreEngine(Exclusive):
    """Opens (or creates) a store; see the module's contract.

    path: the directory, or None for a store in memory.  slots_max: tests make pages tiny with it.
    files: what the store's files are in, if not in the directory.
    SchemaError when the stored schema is another one, CorruptionError for damage, LockedError when
    another process writes.
    """

    lock: WriterLock | None = None  # of a writable store with files
    standing: Standing | None = None  # of a read-only one: how far it has followed the writer
    replica: Engine | None = None  # what counts the memtables that refreshes made

    def __init__(
        self,
        path: str | None,
        options: Options,
        slots_max: int = 0,
        files: Files | None = None,
    ) -> None:
        super().__init__(path)
        self.options = options
        self.in_memory = path is None
        self.files = files or (MemoryFiles() if path is None else Files(path))
        self.background: Background | None = None  # None: maintenance is done by who finds it due
        self.room = threading.Event()  # a memtable was written out, or could not be
        self.step: Callable[[int], None] = lambda done: None  # between the steps of a merge
        self.speed = Speed()
        self.idle = Quiet()
        self.writable = options.flag != "r"
        # What layers above this one do; cesium.opening puts them in.
        self.make_room: Callable[[StoreEngine, bool], None] = lambda engine, must: None
        self.checkpoint: Callable[[StoreEngine], None] = lambda engine: None
        self.interval_sync = IntervalSync(self)
        self.turn = Turn()
        self.upkeep = Upkeep()
        self.retired: dict[int, SegmentReader] = {}  # merged away, still in the manifest
        # By id, those of named versions alone that somebody reads.
        self.kept: WeakValueDictionary[int, SegmentReader] = WeakValueDictionary()
        self._id_lock = threading.Lock()
        self.tables: dict[int, TableEngine] = {}
        self._by_name: tuple[dict[int, TableEngine], dict[str, TableEngine]] = ({}, {})
        self.snapshots: WeakValueDictionary[int, Pins] = WeakValueDictionary()  # by id()
        self._orphans: list[str] = []  # what crashes left behind
        warn_once(self.files)
        try:
            if self.writable:
                self._open(options, slots_max)
            else:
                open_beside_writer(self, lambda: self._open(options, slots_max))
        except BaseException:
            if "manifest" in vars(self):
                self.manifest.close()
            if self.lock is not None:
                self.lock.release()
            raise

    # -- opening

    def _open(self, options: Options, slots_max: int) -> None:
        locks = self.writable and not self.in_memory
        names = self._take_lock(options) if locks else names_of(self.files)
        with collector_paused():
            manifest = Manifest.load(self.files, names, durably=self.writable)
        if manifest is None or options.flag == "n":
            if options.flag != "n" and ([*segment_numbers(names), *journals_of(names)]):
                raise CorruptionError(
                    f"{self.path} has journals or segments but no manifest", file=self.path
                )
            if not self.writable or options.flag == "w":
                raise FileNotFoundError(f"there is no store at {self.path}")
            names, manifest = self._create(options, names)
        self.manifest = manifest
        state = manifest.state
        if options.at is not None:
            state, names = opened_at(state, names, options.at, self.path)
        unjournaled = options.durability == "none" and self.writable and not self.in_memory
        journaled = not self.in_memory and not unjournaled
        self.core_engine = Engine(
            EngineHost(self), journaled, unjournaled, state.sequence, options.memory_limit_bytes
        )
        self.core_engine.read_only = not self.writable
        self.blobs = BlobFiles(self.files, state.store_uuid)
        self.slots_max = slots_max
        self.tables = {number: self.table_engine(state.tables[number]) for number in state.tables}
        if DEFAULT_TABLE not in self.tables:
            raise CorruptionError(
                f"{manifest.path} does not name table {DEFAULT_TABLE}", file=manifest.path
            )
        self.main = self.tables[DEFAULT_TABLE]
        self.main.agree(options.key, options.value)
        records = segments_by_table(state)
        with collector_paused():
            for number, table in self.tables.items():
                table.core.publish(table.stored_version(records.get(number, ()), table.reader))
        live = {reader.name for reader in self.segments()}
        names = [name for name in names if name not in live]  # few, however many segments
        others = [*state.segments, *segment_numbers(names), *blob_numbers(names)]
        self.next_segment_id = max(state.next_segment_id, 1 + max(others, default=0))
        self.journal = self._recover(state, names)
        self._orphans = self._find_orphans(names)

    def _take_lock(self, options: Options) -> list[str]:
        """Locks the directory, which is made if need be, and gives its listing from then on."""
        there = self.files.exists()
        if not there or not is_signed(self.files):
            names = self.files.list() if there else []
            # Before anything is opened: a LOCK of somebody else's, closed again, would lose the
            # POSIX lock that this process may hold on it.
            check_own(self.files, names, options.flag)
            if not names and options.flag == "w":
                raise FileNotFoundError(f"there is no store at {self.path}")
            if not names:
                self._new_table(options)  # refused before anything is made
        if not there:
            self.files.make_directory()
        self.lock = self.files.lock()
        names = self.files.list()
        check_own(self.files, names, options.flag)
        if self.lock is not None:
            self.lock.sign()
        return names

    def _create(self, options: Options, names: list[str]) -> tuple[list[str], Manifest]:
        table = self._new_table(options)
        state = State(
            os.urandom(16),
            next_table_id=DEFAULT_TABLE + 1,
            tables={DEFAULT_TABLE: table},
        )
        # Until the new manifest is there, the old store opens, without its latest commits: journals
        # go first, for the new one must not meet them, from the highest on: a chain is left.
        # One that was dropped just now may come back, too, until the directory is synced.
        if any(name.startswith("manifest-") for name in names):
            self.files.sync_directory()
        for name in sorted(journals_of(names), reverse=True):
            self.files.unlink(name)
            self.files.sync_directory()
        manifest = self.manifest = Manifest.create(self.files, state)  # and the old ones are gone
        for name in names:
            if segment_numbers([name]) or blob_numbers([name]) or name.endswith(UNFINISHED):
                self.files.unlink(name)
        return self.files.list(), manifest

    @property
    def sequence(self) -> int:
        """Of the last commit that reads see."""
        standing = self.standing
        return self.core_engine.sequence if standing is None else standing.sequence

    def _new_table(self, options: Options) -> TableRecord:
        call = f"cesium.open({self.path or ':memory:'!r}"
        return new_table("", options.key, options.value, call)

    def check_schema(self, options: Options) -> None:
        """SchemaError unless the options name no schema or the stored one."""
        self.main.agree(options.key, options.value)

    def _recover(self, state: State, names: list[str]) -> Journal:
        if not numbers_of(names, "journal"):
            return self._replay(state, names)  # a clean close left nothing to recover
        with event(self, "recovery", sequence_before=state.sequence) as facts:
            journal = self._replay(state, names)
            facts["sequence"] = self.core_engine.sequence
            facts["journal_files"] = len(journal.files)
            facts["bytes_read"] = sum(file.bytes for file in journal.files)
            facts["dropped_bytes"] = journal.dropped_bytes
        return journal

    def _replay(self, state: State, names: list[str]) -> Journal:
        journal = journal_of(self, state, names)
        apply_journal(self, state, self.tables, journal.replay_spans())
        return journal

    # -- tables

    def table_engine(self, record: TableRecord) -> TableEngine:
        """A table of the store, empty as yet."""
        return TableEngine(self, record, self.slots_max)

    def tables_by_name(self) -> dict[str, TableEngine]:
        """All tables by name; the default one has an empty name."""
        tables, found = self._by_name
        if tables is not self.tables:  # which is replaced, never changed
            found = {table.record.name: table for table in self.tables.values()}
            self._by_name = self.tables, found
        return found

    def cores(self) -> list[TableCore]:
        """What the tables change."""
        return [table.core for table in self.tables.values()]

    def segments(self) -> list[SegmentReader]:
        """The readers of all tables' segments; who holds them pins their files."""
        return [reader for table in self.tables.values() for reader in table.segments()]

    def freeze(self) -> list[MemtableSnapshot]:
        """Freezes what the live memtables of all tables hold, at one commit (writer lock held)."""
        return freeze_tables(self.core_engine, self.cores())

    def allocate_segment_id(self) -> int:
        """A segment id that no file has or had."""
        with self._id_lock:
            segment_id = self.next_segment_id
            self.next_segment_id += 1
            return segment_id

    # -- what the compiled engine asks for, under the writer lock

    def open_journal(self) -> JournalWriter:
        """The first file to append to since opening; what crashes left behind is removed first."""
        self._remove_orphans()
        self.core_engine.unwatched = self.background is not None
        return self.rotate_journal(0)

    def _remove_orphans(self) -> None:
        while self._orphans:
            self.files.unlink(self._orphans[-1])
            self._orphans.pop()

    def journal_writer(self) -> JournalWriter | None:
        """The journal file that was made last, if it is still there."""
        return self.journal.writer

    def rotate_journal(self, frame_bytes: int) -> JournalWriter:
        """The next journal file, with room for a frame of that length."""
        state = self.manifest.state
        self.journal.manifest_generation = state.generation
        self.journal.tables = state.tables.values()
        if sum(file.bytes for file in self.journal.files) >= self.options.journal_limit_bytes:
            self.core_engine.checkpoint_due = True
        with poisoning(self.core_engine):
            return self.journal.rotate(frame_bytes)

    def _find_orphans(self, names: list[str]) -> list[str]:
        """Of names that were there when the store was opened, those that nothing refers to.

        Found then, because what is merged away later may be pinned, and is then read by its name.
        """
        records = [reader.record for reader in self.segments()]
        records += named_records(self.manifest.state)
        live = {record.id for record in records}
        blobs = {share.id for record in records for share in record.blobs}
        return [
            name
            for name in names
            if any(number not in live for number in segment_numbers([name]))
            or any(number not in blobs for number in blob_numbers([name]))
            or (name.startswith("manifest-") and name != self.manifest.name)
        ]

    def memtable_full(self, core: TableCore) -> None:
        """Makes room in the memtable, outside the writer lock, as the maintenance sees fit."""
        self.make_room(self, False)

    # -- manifest and closing

    def append_edit(self, edit: Edit) -> None:
        """Appends an edit to the manifest, with the ids and the epoch as of now."""
        self._remove_orphans()
        edit = replace(edit, next_segment_id=self.next_segment_id, epoch=self.journal.epoch)
        with poisoning(self.core_engine):
            self.manifest.append(edit)

    def release(self) -> None:
        """Ends the engine: no call succeeds any more.  The journal keeps what was not flushed."""
        try:
            self.interval_sync.stop()  # before the writer lock, which its thread may want
        finally:
            self._release()

    def _release(self) -> None:
        engine = self.core_engine
        with WriteGuard(engine, closing=True), contextlib.ExitStack() as steps:
            # A commit in flight has ended.  The steps run in the order opposite to that written
            # here, and each of them whatever became of those before it.
            steps.callback(tell_unseen_failure, engine)
            if self.lock is not None:
                steps.callback(self.lock.release)
            # Pins of reads in flight keep what they need; the rest is unmapped.
            for table in self.tables.values():
                steps.callback(table.core.publish, Version(table.shape, [], False))
            steps.callback(self.manifest.close)
            # A failed sync is told: commits that were not acknowledged as synced may be lost.
            steps.callback(self.journal.close, clean=engine.poisoned is None)
            engine.closed = True
