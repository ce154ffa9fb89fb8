"""One open store in this process: its files, lock, journal, manifest, and the compiled engine.

Handles (cesium.store.Store) on the same path share one StoreEngine, which is counted.  It answers
the compiled engine's calls for a journal file and for room in the memtable.

Locks, in the order taken: `opening_lock` (one store is opened at a time), `maintenance` (flush,
merge, checkpoint, close), then the compiled writer lock.  `registry_lock` is the innermost, and
held only to count a handle.  All of Python's are RLocks, for a signal handler or a collected handle
may come in the midst of what holds them: counting stands that, opening another store too, and
maintenance of the same store refuses it.

What happens to the sources of the version, happens under the writer lock, by identity: a frozen
memtable, a segment; so a load that attaches while a merge runs is never lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from cesium._engine import Engine, TableCore, WriteGuard
from cesium._journal import JournalWriter
from cesium._keys import KeyCodec
from cesium._memtable import MemtableSnapshot
from cesium._page import TableShape
from cesium._recovery import apply_span
from cesium._segment import SegmentReader
from cesium._values import ValueCodec
from cesium._version import Version
from cesium.errors import ConflictError, CorruptionError, Error, PoisonedError, SchemaError
from cesium.files import UNFINISHED, Files, MemoryFiles
from cesium.journal import PROCESS_STEP_BYTES, SYNC_STEP_BYTES, Journal
from cesium.keys import key_codec
from cesium.lock import WriterLock
from cesium.manifest import Manifest
from cesium.options import Options
from cesium.state import Edit, SegmentRecord, State, TableRecord
from cesium.values import value_codec

OPEN_ATTEMPTS = 20  # beside a writer in another process, which changes files
TIER_NEW = 0  # sources of flushes and loads, newest first, may overlap
TIER_BASE = 1  # the last tier: one run, no markers, no filters
OWN_FILES = ("LOCK", "manifest-", "journal-", "segment-")

Source = MemtableSnapshot | list[SegmentReader]


def segment_name(segment_id: int) -> str:
    """The file name of a segment."""
    return f"segment-{segment_id:010d}"


class StoreEngine:
    """Opens (or creates) a store; see the module's contract.

    path: the directory, or None for a store in memory.  slots_max: tests make pages tiny with it.
    SchemaError when the stored schema is another one, CorruptionError for damage, LockedError when
    another process writes.
    """

    lock: WriterLock | None = None  # of a writable store with files

    def __init__(self, path: str | None, options: Options, slots_max: int = 0) -> None:
        self.path = path
        self.options = options
        self.in_memory = path is None
        self.files: Files = MemoryFiles() if path is None else Files(path)
        self.handles = 0
        self.identity = (0, 0)  # device and inode of the directory
        self.ending_thread = 0  # that closes the last handle, once one does
        self.ended = threading.Event()
        self.maintenance = threading.RLock()
        self.maintaining = False  # with `maintenance` held: by a call further up in this thread
        self.writable = options.flag != "r"
        self.make_room: Callable[[StoreEngine], None] = lambda engine: None
        self.retired: dict[int, SegmentReader] = {}  # merged away, still in the manifest
        self._id_lock = threading.Lock()
        self._orphans: list[str] = []  # what crashes left behind
        self._durable = 0
        try:
            if self.writable:
                self._open(options, slots_max)
            else:
                self._open_beside_writer(options, slots_max)
        except BaseException:
            if self.lock is not None:
                self.lock.release()
            raise
        _engines.add(self)

    # -- opening

    def _open_beside_writer(self, options: Options, slots_max: int) -> None:
        """Opens without the lock: again, while another process changes the files meanwhile."""
        for last in [*[False] * (OPEN_ATTEMPTS - 1), True]:
            before = self._fingerprint()
            try:
                self._open(options, slots_max)
                self._map_segments(None if last else before)
                return
            except (FileNotFoundError, CorruptionError):
                if last or self._fingerprint() == before:
                    raise

    def _map_segments(self, before: list[tuple[str, int]] | None) -> None:
        """What the other process merges away later must stay readable: a mapping keeps it.

        FileNotFoundError for what was merged away just now; other damage is told when it is read.
        """
        for reader in self.core.version.segments():
            try:
                reader.map()
            except (OSError, Error) as error:
                if isinstance(error, FileNotFoundError) and before not in (
                    None,
                    self._fingerprint(),
                ):
                    raise

    def _fingerprint(self) -> list[tuple[str, int]]:
        """What differs after another process has checkpointed or merged."""
        prints = []
        for name in self.files.list() if self.files.exists() else []:
            size = 0
            with contextlib.suppress(FileNotFoundError):
                size = self.files.size(name) if name.startswith("manifest-") else 0
            prints.append((name, size))
        return prints

    def _open(self, options: Options, slots_max: int) -> None:
        if self.writable and not self.in_memory:
            self._take_lock(options)
        names = self.files.list() if self.files.exists() else []
        manifest = Manifest.load(self.files, names)
        if manifest is None or options.flag == "n":
            if not self.writable or options.flag == "w":
                raise FileNotFoundError(f"there is no store at {self.path}")
            names, manifest = self._create(options, names)
        self.manifest = manifest
        state = manifest.state
        self.table = next(iter(state.tables.values()))
        self.keys, self.values = self._codecs(options)
        self.shape = TableShape(
            self.keys.width, self.values.width, self.values.field_widths, slots_max
        )
        self.next_segment_id = max(
            [state.next_segment_id, *(1 + number for number in segment_numbers(names))]
        )
        self.core_engine = Engine(_Weak(self), not self.in_memory, state.sequence)
        self.core_engine.read_only = not self.writable
        self.core = TableCore(
            self.core_engine, self.table.id, self.shape, options.memtable_limit_bytes
        )
        self.core.publish(self._stored_version(state))
        self.journal = self._replay(state, names)
        self._orphans = self._find_orphans(names)

    def _take_lock(self, options: Options) -> None:
        if not self.files.exists():
            if options.flag == "w":
                raise FileNotFoundError(f"there is no store at {self.path}")
            self._new_codecs(options)  # refused before anything is made
            self.files.make_directory()
        else:
            self._check_own(self.files.list(), options)
        self.lock = WriterLock(self.files.path("LOCK"))

    def _check_own(self, names: list[str], options: Options) -> None:
        """A directory that holds anything else is not ours to fill, still less to empty."""
        foreign = [name for name in names if not name.startswith(OWN_FILES)]
        is_store = any(name.startswith("manifest-") for name in names)
        if foreign and (options.flag == "n" or not is_store):
            if not is_store and options.flag == "w":
                raise FileNotFoundError(f"there is no store at {self.path}")
            raise FileExistsError(
                f"{self.path} holds files that are not a store's, such as {foreign[0]!r}"
            )

    def _create(self, options: Options, names: list[str]) -> tuple[list[str], Manifest]:
        journals = [name for name in names if name.startswith("journal-")]
        if options.flag != "n" and (journals or segment_numbers(names)):
            raise CorruptionError(
                f"{self.path} has journals or segments but no manifest", file=self.path
            )
        key, value = self._new_codecs(options)
        state = State(
            os.urandom(16),
            next_table_id=2,
            tables={1: TableRecord(1, "", key.spec, value.spec)},
        )
        # Until the new manifest is there, the old store opens, without its latest commits from the
        # first unlink on.  Journals go first, the highest before the others: what is left of them
        # is a chain, and the new manifest must not meet those of another store.
        for name in sorted(journals, reverse=True):
            self.files.unlink(name)
            self.files.sync_directory()
        manifest = Manifest.create(self.files, state)  # and the old manifests are gone
        for name in names:
            if segment_numbers([name]) or name.endswith(UNFINISHED):
                self.files.unlink(name)
        return self.files.list(), manifest

    def _new_codecs(self, options: Options) -> tuple[KeyCodec, ValueCodec]:
        """The codecs of a store to be made; SchemaError when the options name none."""
        if options.key is None:
            raise SchemaError(
                f"a new store needs a key type: cesium.open({self.path or ':memory:'!r}, key=...)"
            )
        return (
            key_codec(options.key),
            value_codec("bytes" if options.value is None else options.value),
        )

    def check_schema(self, options: Options) -> None:
        """SchemaError unless the options name no schema or the stored one."""
        self._codecs(options)

    def _codecs(self, options: Options) -> tuple[KeyCodec, ValueCodec]:
        """The stored schema's codecs, or the given one's where it is the same."""
        stored_key, stored_value = self.table.key, self.table.value
        given_key = None if options.key is None else key_codec(options.key)
        given_value = None if options.value is None else value_codec(options.value)
        if (given_key is not None and given_key.spec != stored_key) or (
            given_value is not None and given_value.spec != stored_value
        ):
            raise SchemaError(
                f"{self.path} stores key={stored_key!r}, value={stored_value!r}; it was opened "
                f"with key={given_key.spec if given_key else stored_key!r}, "
                f"value={given_value.spec if given_value else stored_value!r}"
            )
        return (
            given_key if given_key is not None else key_codec(stored_key),
            given_value if given_value is not None else value_codec(stored_value),
        )

    def reader(self, record: SegmentRecord) -> SegmentReader:
        """A reader of a segment file; nothing is touched before its first use."""
        return SegmentReader(
            record, self.files, segment_name(record.id), self.shape, self.manifest.state.store_uuid
        )

    def _stored_version(self, state: State) -> Version:
        records = state.segments.values()
        newest_first = sorted(
            (record for record in records if record.tier == TIER_NEW),
            key=lambda record: (record.last_sequence, record.id),
            reverse=True,
        )
        sources: list[Source] = [[self.reader(record)] for record in newest_first]
        base = [self.reader(record) for record in records if record.tier == TIER_BASE]
        return self.version_of(sources, base)

    def version_of(self, newer: Iterable[Source], base: Iterable[SegmentReader]) -> Version:
        """A version of sources, newest first, above the last tier's run."""
        run = sorted(base, key=lambda reader: reader.record.lower)
        return Version(self.shape, [*newer, run] if run else list(newer), bool(run))

    def _replay(self, state: State, names: list[str]) -> Journal:
        journal = Journal(
            self.files,
            state.store_uuid,
            names=names,
            flushed_sequence=state.flushed_sequence,
            manifest_generation=state.generation,
            minimum_epoch=state.epoch,
            prepare_step_bytes=(
                SYNC_STEP_BYTES if self.options.durability == "sync" else PROCESS_STEP_BYTES
            ),
        )
        for span in journal.replay_spans():
            apply_span(self.core, span.data, span.start, span.end, self._replay_attach)
        return journal

    def _replay_attach(self, sequence: int, payload: bytes) -> None:
        records = [SegmentRecord.from_json(item) for item in json.loads(payload)["segments"]]
        for record in records:
            self.next_segment_id = max(self.next_segment_id, record.id + 1)
        self.core.publish(self.version_with([self.reader(record) for record in records]))

    # -- sources

    def version_with(self, readers: list[SegmentReader]) -> Version:
        """The version with loaded segments above all that is there, or in the last tier if made for
        it.

        The writer lock is held, or the store is being opened.  Freezes the memtable, to lie below.
        """
        self.core.freeze()
        newer, base = self.split_sources()
        if readers[0].record.tier == TIER_BASE:
            return self.version_of(newer, [*base, *readers])
        return self.version_of([readers, *newer], base)

    def split_sources(self) -> tuple[list[Source], list[SegmentReader]]:
        """The current sources above the last tier, newest first, and the last tier's run."""
        version = self.core.version
        sources = list(version.sources)
        base = sources.pop() if version.last_run_is_base else []
        assert isinstance(base, list)
        return sources, base

    def allocate_segment_id(self) -> int:
        """A segment id that no file has or had."""
        with self._id_lock:
            segment_id = self.next_segment_id
            self.next_segment_id += 1
            return segment_id

    @property
    def durable_sequence(self) -> int:
        """Every commit up to this one is on stable storage."""
        sequence = self.core_engine.sequence  # first: what is appended later does not count
        writer = self.core_engine.journal
        if self.in_memory:
            return 0
        if writer is not None and writer.fully_synced:
            self._durable = max(self._durable, sequence)
        return max(self._durable, self.manifest.state.flushed_sequence)

    def sync(self) -> None:
        """Waits until every commit so far is on stable storage; PoisonedError if a sync fails."""
        inner = self.core_engine
        if self.in_memory or not self.writable:
            return
        if inner.journal is None:
            with WriteGuard(inner):
                if inner.journal is None:
                    self._sync_replayed()
        sequence = inner.sequence  # before the position, which so covers it
        inner.wait(*inner.durable_position())
        self._durable = max(self._durable, sequence)

    def _sync_replayed(self) -> None:
        """What was replayed came from a process that may not have synced it (writer lock held)."""
        try:
            self.journal.sync()
        except OSError as error:
            self.core_engine.poisoned = error
            raise PoisonedError(f"the journal could not be synced ({error})") from error
        self._durable = max(self._durable, self.core_engine.sequence)

    # -- what the compiled engine asks for, under the writer lock

    def open_journal(self) -> JournalWriter:
        """The first file to append to since opening; what crashes left behind is removed first."""
        while self._orphans:
            self.files.unlink(self._orphans[-1])
            self._orphans.pop()
        return self.rotate_journal(0)

    def journal_writer(self) -> JournalWriter | None:
        """The journal file that was made last, if it is still there."""
        return self.journal.writer

    def rotate_journal(self, frame_bytes: int) -> JournalWriter:
        """The next journal file, with room for a frame of that length."""
        self.journal.manifest_generation = self.manifest.state.generation
        return self.journal.rotate(frame_bytes)

    def _find_orphans(self, names: list[str]) -> list[str]:
        """Of the files that were there when the store was opened, those that nothing refers to.

        Found then, because what is merged away later may be pinned, and is then read by its name.
        """
        live = {reader.record.id for reader in self.core.version.segments()}
        return [
            name
            for name in names
            if any(number not in live for number in segment_numbers([name]))
            or (name.endswith(UNFINISHED) and name.startswith("manifest-"))
        ]

    def memtable_full(self, core: TableCore) -> None:
        """Makes room in the memtable, outside the writer lock, as the maintenance sees fit."""
        self.make_room(self)

    # -- manifest and closing

    def append_edit(self, edit: Edit) -> None:
        """Appends an edit to the manifest, with the ids and the epoch as of now."""
        self.manifest.append(
            replace(edit, next_segment_id=self.next_segment_id, epoch=self.journal.epoch)
        )

    def release(self) -> None:
        """Ends the engine: no call succeeds afterwards.  The journal keeps what was not flushed."""
        engine = self.core_engine
        if engine.forked:
            engine.closed = True
            return
        with WriteGuard(engine, closing=True), contextlib.ExitStack() as steps:
            # A commit in flight has ended.  The steps run in the order opposite to that written
            # here, and each of them whatever became of those before it.
            if self.lock is not None:
                steps.callback(self.lock.release)
            # Pins of reads in flight keep what they need; the rest is unmapped.
            steps.callback(self.core.publish, Version(self.shape, [], False))
            steps.callback(self.manifest.close)
            # A failed sync is told: commits that were not acknowledged as synced may be lost.
            steps.callback(self.journal.close, clean=engine.poisoned is None)
            engine.closed = True

    # -- handles

    def join(self) -> bool:
        """Counts one more handle; False when the last one has been closed."""
        with registry_lock:
            self.handles += 1
            if self.ending_thread:
                self.handles -= 1
                return False
            return True

    def leave(self) -> bool:
        """Counts one handle less; True when it was the last: the caller must close the engine."""
        with registry_lock:
            self.handles -= 1
            if self.handles or self.ending_thread:
                return False
            self.ending_thread = threading.get_ident()
            return True

    def end(self) -> None:
        """Lets those go on who wait for the engine to be closed, to open its path again."""
        with registry_lock:
            if registry.get(self.identity) is self:
                del registry[self.identity]
        self.ended.set()

    def wait_ended(self) -> None:
        """Waits for the thread that closes the last handle."""
        if self.ending_thread == threading.get_ident():
            raise ConflictError(f"{self.path} is being closed further up in this thread")
        self.ended.wait()

    def check_not_inside(self, what: str) -> None:
        """Error when this thread is inside a write or maintenance of this store."""
        inside = self.core_engine.is_writing_here
        if not inside and self.maintenance.acquire(blocking=False):
            inside = self.maintaining
            self.maintenance.release()
        if inside:
            raise Error(
                f"{what} inside a write of the same thread (a signal handler, a finalizer or "
                "a codec uses the store that called it)"
            )

    @contextlib.contextmanager
    def exclusive_maintenance(self, what: str) -> Iterator[None]:
        """Holds `maintenance`; Error when it is held further up in this thread."""
        self.check_not_inside(what)
        with self.maintenance:
            self.maintaining = True
            try:
                yield
            finally:
                self.maintaining = False


def segment_numbers(names: Iterable[str]) -> list[int]:
    """The ids of the segment files among some names."""
    return [
        int(name.removeprefix("segment-"))
        for name in names
        if name.startswith("segment-") and name.removeprefix("segment-").isdigit()
    ]


class _Weak:
    """The compiled engine's way back to its StoreEngine, without a cycle for gc to free."""

    def __init__(self, engine: StoreEngine) -> None:
        self._engine = weakref.ref(engine)

    def _owner(self) -> StoreEngine:
        engine = self._engine()
        if engine is None:
            raise Error("the store was dropped")
        return engine

    def open_journal(self) -> JournalWriter:
        return self._owner().open_journal()

    def journal_writer(self) -> JournalWriter | None:
        return self._owner().journal_writer()

    def rotate_journal(self, frame_bytes: int) -> JournalWriter:
        return self._owner().rotate_journal(frame_bytes)

    def memtable_full(self, core: TableCore) -> None:
        self._owner().memtable_full(core)


# --- one engine a path and process -----------------------------------------------------------

opening_lock = threading.RLock()
registry_lock = threading.RLock()
registry: dict[tuple[int, int], StoreEngine] = {}  # by device and inode of the directory
_engines: weakref.WeakSet[StoreEngine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A child has the parent's memory but none of its threads, locks or rights."""
    global opening_lock, registry_lock
    opening_lock = threading.RLock()
    registry_lock = threading.RLock()
    for engine in list(_engines):
        engine.core_engine.forked = True
        engine.maintenance = threading.RLock()
        engine.maintaining = False
    registry.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
