"""Store: the face of cesium, and how stores are opened and shared within a process.

What a store does as a table is in cesium/tables.py; here is what there is one of: opening and
closing, tables, transactions and snapshots, maintenance.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from cesium import feed
from cesium.backup import BackupReport, Dest, backup
from cesium.catalog import drop, open_table
from cesium.directory import bytes_of
from cesium.durability import durable_sequence, sync
from cesium.engine import StoreEngine
from cesium.errors import ClosedError, Error
from cesium.feed import Change
from cesium.key_names import with_names
from cesium.memory import Memory, memory
from cesium.naming import NamedCheckpoints
from cesium.opening import acquire, close_collected, close_engine
from cesium.options import BLOB_THRESHOLD, At, Options
from cesium.pace import PAGE_BYTES
from cesium.plots import Plots
from cesium.progress import Progress, reporting
from cesium.refreshing import refresh
from cesium.report import Report
from cesium.snapshot import Snapshot
from cesium.stats import Stats, stats
from cesium.tables import Table, TableHandle, Tables, bytes_of_segments
from cesium.transactions import Transaction, TransactionReads
from cesium.typed import K, V
from cesium.verify import verify


def open(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    key: Any = None,
    value: Any = None,
    flag: str = "c",
    durability: str = "sync",
    memory_limit: int | str = "1GiB",
    *,
    blob_threshold: int | str | None = BLOB_THRESHOLD,
    at: At | None = None,
    options: Options | None = None,
) -> Store:
    """Opens, and if need be creates, the store in the directory `path` (":memory:": in memory).

    key: "u8", "i4", "f8", "bool", "datetime64[ns]", "str", "bytes", "uuid", any numpy dtype of
    these, a tuple of them, each part descending with a leading "-", or a cesium.KeyCodec; or a list
    of (name, type), which names the columns of the key for frames.  value: a numpy dtype, a list of
    (name, dtype), "bytes" (the default), "str", "json", "msgpack" or a cesium.ValueCodec.  Both are
    stored; leave them out to take what is there.  flag: "c" creates if missing, "n" makes a new and
    empty store, "w" opens an existing one, "r" opens it read-only.
    durability, memory_limit, blob_threshold: see cesium.Options, which has more settings and may be
    given as `options`; what else is given and differs from its default counts more than it says.
    at: a checkpoint's name, or a time, which is the last one named until then: opens the store
    read-only as it was (docs/checkpoints.md).

    A path that is open for writing in this process is one engine, however often it is opened; any
    other read-only handle sees the store as of its own opening, or its last `refresh`.

    Errors: FileNotFoundError (no store there), FileExistsError (other files there), SchemaError
    (another schema is stored, or none is given), LockedError (another process writes),
    ConflictError (open in this process with other options), CorruptionError (damage), KeyError (no
    such checkpoint).
    """
    given = Options(key, value, flag, durability, memory_limit, blob_threshold, at=at)
    options = given if options is None else options.overridden_by(given)
    return Store(acquire(path, options), options)


def _reopen(kind: type[Store], path: str, options: Options) -> Store:
    return kind(acquire(path, options), options)


class Store(NamedCheckpoints, TableHandle[K, V]):
    """An open store: a mapping in key order, with batches, ranges and loads beside it.

    Made by `cesium.open`.  Any method may be called from any thread; use it as a context manager,
    or `close` it.  Two stores are equal only if they are the same object.
    """

    def __new__(cls, engine: StoreEngine, options: Options) -> Self:
        return super().__new__(
            cls, engine.main.core, *engine.main.codecs, options.durability, options.flag == "r"
        )

    def __init__(self, engine: StoreEngine, options: Options) -> None:
        self._engine = engine
        self._table = engine.main
        self._opened: WeakValueDictionary[int, Table] = WeakValueDictionary()
        keys, values = engine.main.codecs
        self.options = replace(options, key=keys.spec, value=values.spec)

    @property
    def path(self) -> str:
        """The store's directory, or ":memory:"."""
        return self._engine.path or ":memory:"

    def _check_process(self) -> None:
        if self._engine.core_engine.forked:
            raise ClosedError("this store was opened before the process was forked: open it again")

    # -- tables

    def table(self, name: str, key: Any = None, value: Any = None) -> Table:
        """The table of that name; made, durably, where it is not there and `key` is given.

        A store has any number of tables beside the default one, which it is itself, each with a key
        and a value type of its own (as `cesium.open` takes them), all in one journal: a transaction
        may span them, and a snapshot shows all of them at one commit.  While it is held, the same
        call gives the same object.

        Errors: KeyError where it is not there and no type is given, SchemaError for another schema
        than the stored one, ReadOnlyError where it would have to be made, ValueError for an empty
        name, LimitError for one longer than 255 bytes.
        """
        self._check_open()
        found = open_table(self._engine, name, key, value, self.read_only)
        table = self._opened.get(found.record.id)
        return table or self._opened.setdefault(found.record.id, Table(self, found))

    @property
    def tables(self) -> Tables:
        """The tables by name, but for the default one: a mapping, as of when it is asked."""
        self._check_open()
        return Tables(self)

    def drop_table(self, name: str) -> None:
        """Removes a table with all its rows, atomically and durably, and gives their space back.

        Handles of the table raise ClosedError from then on; snapshots that show it go on, and keep
        its files until they are closed.  It waits for an open transaction.  KeyError without such a
        table.
        """
        self._check_writable()
        drop(self._engine, name)

    def _inside(self, transaction: Transaction) -> TransactionReads:
        return transaction

    # -- keeping

    def transaction(
        self, optimistic: bool = False, durability: str | None = None
    ) -> Transaction[K, V]:
        """A transaction, for a with statement: all of what is done in it happens, or nothing.

        It reads the store as it is when it begins, and its own writes.  An exception rolls it back.
        Until it ends, all other writes to the store wait.  optimistic: they do not; the end raises
        ConflictError when something that was read has changed (cesium.retry does it again).
        durability: a higher level than the store's for its commit.
        """
        self._check_writable()
        return Transaction(self, optimistic, durability)

    def snapshot(self) -> Snapshot[K, V]:
        """The store as it is at this commit, for reading, however it is written to from now on.

        Use it as a context manager, or `close` it: it keeps the files and memtables that it reads.
        It does not keep the store open.
        """
        self._check_open()
        return Snapshot(self._engine)

    def changes(self, since: int | None = None) -> Iterator[Change]:
        """The commits after a sequence, in order, through the last one as of this call.

        since: a sequence, such as that of the last commit that was dealt with; None: the earliest
        after which all are kept.  They come from the journal, which a checkpoint empties (`close`
        makes one, and so does a full memtable): docs/changes.md.  Writers may go on meanwhile.

        Errors, before the first commit: NotKeptError where the journal does not reach back so far,
        or there is none (a store in memory, or with durability "none"), ValueError for a sequence
        that is yet to come.  Later: CorruptionError for damage, ClosedError.
        """
        self._check_open()
        return feed.changes(self, None, since)

    def refresh(self) -> int:
        """Moves a read-only handle to the newest commit of the writer in another process.

        Returns the sequence that it now stands at.  Snapshots, ranges and iterators from before
        keep reading what they read; other threads may read meanwhile, and see all of it at once.  A
        handle that shares the engine of its process's writer, and one that writes, always stands at
        the newest commit.  Whatever this raises, the handle stays where it is, and usable:
        CorruptionError (damage), Error (another store is there by now), FileNotFoundError (none).
        """
        self._check_open()
        return refresh(self._engine)

    @property
    def sequence(self) -> int:
        """The sequence of the last commit that reads see."""
        self._check_process()
        return self._engine.sequence

    @property
    def durable_sequence(self) -> int:
        """Every commit up to this one is on stable storage."""
        self._check_process()
        return durable_sequence(self._engine)

    def sync(self) -> None:
        """Waits until every commit so far is on stable storage; PoisonedError if a sync fails."""
        self._check_open()
        sync(self._engine)

    def compact(self, progress: Progress = False) -> None:
        """Merges every table into one run without delete markers, giving their space back.

        progress: shows a bar; or a function, called with the rows done and about how many in all.
        """
        self._compact(self._engine.tables.values(), progress)

    def backup(
        self, dest: Dest, incremental: bool = True, links: bool = True, progress: Progress = False
    ) -> BackupReport:
        """Makes the directory `dest` a backup of the store as of one commit; writers go on.

        dest: new, empty, or an earlier backup, of which stays what is the same (incremental).
        Files are linked, or share their blocks, where the file system and `links` allow it; else
        they are copied, and checked: docs/files.md.  Errors: FileExistsError (dest is something
        else, or has later commits), CorruptionError, LockedError (another backup goes there).
        """
        self._check_open()
        return backup(self._engine, dest, incremental, links, progress)

    def verify(self, progress: Progress = False, rate: int | str | None = None) -> Report:
        """Reads every page and every frame from the drive and checks it.

        progress: shows a bar; or a function, called with the pages read and about how many in all.
        rate: bytes a second, or a text such as "200MB/s", to read at most.
        """
        self._check_open()
        files = self._engine.files
        total = bytes_of(files, ("manifest-", "journal-"))
        total += bytes_of_segments(self._engine.tables.values())
        with reporting("verifying", total // PAGE_BYTES, progress) as report:
            return verify(self._engine, report, rate)

    def stats(self) -> Stats:
        """The store in numbers, which print as tables; no page is read for them."""
        self._check_open()
        return stats(self._engine)

    def memory(self) -> Memory:
        """Who holds how much memory, in bytes, mapped files apart; prints as a table."""
        self._check_open()
        return memory(self._engine)

    @property
    def plot(self) -> Plots:
        """Pictures of the store, by matplotlib: `keys`, `tiers`, `latency`, `throughput`."""
        return Plots(self)

    def close(self) -> None:
        """Closes the handle; the last one of a store checkpoints it.  May be called again.

        In a forked child it leaves the parent's files as they are.
        """
        engine = self._engine
        if engine.core_engine.forked:
            self._close_handle()
            return
        if engine.handles == 1:
            engine.check_not_inside("the store is closed")
        if self._close_handle():
            for table in list(self._opened.values()):
                table._close_handle()
            if engine.leave():
                close_engine(engine)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except (OSError, Error) as closing:
            if error is None:
                raise
            error.add_note(f"closing the store failed as well: {closing!r}")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            if not self.closed:
                close_collected(self, self._engine)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled handle reopens its path read-only, with the same options, where it is loaded.

        A subclass stays one; attributes of its own stay behind.
        """
        self._check_open()
        engine = self._engine
        if engine.path is None:
            raise TypeError("a store in memory cannot be pickled: only this process has its rows")
        given = engine.options  # with the user's codecs, of which the store has but the names
        return _reopen, (
            type(self),
            engine.path,
            replace(self.options, flag="r", key=given.key, value=given.value),
        )

    def _title(self) -> str:
        state = "closed " if self.closed else "read-only " if self.read_only else ""
        key, value = with_names(self.options.key, self.key_names), self.options.value
        at = "" if self.options.at is None else f" at {self.options.at!r}"
        return f"<{state}cesium store {self.path!r}{at}, key={key!r}, value={value!r}>"
