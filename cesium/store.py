"""Store: the face of cesium, and how stores are opened and shared within a process.

Everything that a program calls in a loop is in the compiled base class (cesium._core); here is what
needs Python: opening and closing, ranges, loads, maintenance.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from cesium import feed, loader, maintenance
from cesium._core import DURABILITY_ERROR, LEVELS, Commit, CompiledTable
from cesium._keys import EncodedKeys
from cesium._values import EncodedValues
from cesium.backup import BackupReport, Dest, backup
from cesium.casting import at_least
from cesium.directory import bytes_of
from cesium.durability import durable_sequence, sync
from cesium.engine import StoreEngine
from cesium.errors import ClosedError, Error, ReadOnlyError
from cesium.events import event
from cesium.feed import Change
from cesium.large import check_sizes, one_row
from cesium.memory import Memory, memory
from cesium.naming import NamedCheckpoints
from cesium.opening import acquire, close_collected, close_engine
from cesium.options import BLOB_THRESHOLD, At, Options
from cesium.ordered import OrderedReads
from cesium.pace import PAGE_BYTES
from cesium.plots import Plots
from cesium.progress import Progress, reporting
from cesium.refreshing import refresh
from cesium.report import Report
from cesium.revisions import Revisions
from cesium.snapshot import Snapshot
from cesium.stats import Stats, stats
from cesium.transactions import Transaction
from cesium.verify import verify

THREADS_MOST = 4  # what a load takes when nobody says: the drive is full by then


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
    these, a tuple of them, each part descending with a leading "-", or a cesium.KeyCodec.  value: a
    numpy dtype, a list of (name, dtype), "bytes" (the default), "str", "json", "msgpack" or a
    cesium.ValueCodec.  Both are stored; leave them out to take what is there.  flag: "c" creates if
    missing, "n" makes a new and empty store, "w" opens an existing one, "r" opens it read-only.
    durability, memory_limit, blob_threshold: see cesium.Options, which may be given instead.
    at: a checkpoint's name, or a time, which is the last one named until then: opens the store
    read-only as it was (docs/checkpoints.md).

    A path that is open for writing in this process is one engine, however often it is opened; any
    other read-only handle sees the store as of its own opening, or its last `refresh`.

    Errors: FileNotFoundError (no store there), FileExistsError (other files there), SchemaError
    (another schema is stored, or none is given), LockedError (another process writes),
    ConflictError (open in this process with other options), CorruptionError (damage), KeyError (no
    such checkpoint).
    """
    if options is None:
        options = Options(key, value, flag, durability, memory_limit, blob_threshold, at=at)
    return Store(acquire(path, options), options)


def _reopen(kind: type[Store], path: str, options: Options) -> Store:
    return kind(acquire(path, options), options)


class Store(OrderedReads, Revisions, NamedCheckpoints, CompiledTable):
    """An open store: a mapping in key order, with batches, ranges and loads beside it.

    Made by `cesium.open`.  Any method may be called from any thread; use it as a context manager,
    or `close` it.  Two stores are equal only if they are the same object.
    """

    def __new__(cls, engine: StoreEngine, options: Options) -> Store:
        return super().__new__(
            cls, engine.core, engine.keys, engine.values, options.durability,
            options.flag == "r",
        )  # fmt: skip

    def __init__(self, engine: StoreEngine, options: Options) -> None:
        self._engine = engine
        self.options = replace(options, key=engine.keys.spec, value=engine.values.spec)

    @property
    def path(self) -> str:
        """The store's directory, or ":memory:"."""
        return self._engine.path or ":memory:"

    def _check_process(self) -> None:
        if self._engine.core_engine.forked:
            raise ClosedError("this store was opened before the process was forked: open it again")

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise ReadOnlyError("the store was opened with flag='r'")

    # -- batches

    def update(self, pairs: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Commit:
        """Stores every pair of a mapping, or of an iterable of pairs, in one atomic commit."""
        rows = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
        keys = [key for key, _ in rows]
        return self.put_many(keys, [value for _, value in rows])

    def update_many(
        self,
        keys: Any,
        function: Callable[..., Any],
        *arguments: Any,
        default: Any = None,
        durability: str | None = None,
    ) -> Commit:
        """Stores function(values, *arguments) for a batch of keys, in one atomic commit.

        function: a ufunc, or a function of the values as `get_many` gives them, keys that are not
        there holding `default` or zero; it returns as many.  Each key once (ValueError).  So
        store.update_many(keys, np.add, 1) counts.  Other writers wait meanwhile.
        """
        with self.transaction(durability=durability) as transaction:
            transaction.update_many(keys, function, *arguments, default=default)
        assert transaction.committed is not None
        return transaction.committed

    def clear(self) -> Commit:
        """Removes everything, in one atomic commit."""
        return self.delete_range(None, None)

    def _delete_slice(self, interval: slice) -> None:
        if interval.step is not None:
            raise TypeError(f"a slice of a store has no step, so not {interval.step!r}")
        self.delete_range(interval.start, interval.stop)

    def delete_range(self, lo: Any, hi: Any, durability: str | None = None) -> Commit:
        """Removes all keys with lo <= key < hi, None being no bound, in one commit."""
        self._check_writable()
        lower, upper = self._bounds(lo, hi, (True, False))
        if lower is None:
            lower, upper = self._lowest, self._lowest
        return self._delete_encoded(lower, upper, durability)

    def bulk_load(
        self,
        keys: Any,
        values: Any,
        progress: Progress = False,
        threads: int | None = None,
        durability: str | None = None,
    ) -> Commit:
        """Loads a batch of any size and order as one commit, straight into segments.

        keys, values: as for `put_many`; of equal keys the last wins, and it wins over what is
        stored.  All or nothing: until the commit, which is durable when this returns, nothing is
        visible.  progress: shows a bar; or a function, called with the rows done and the rows in
        all, from whatever thread works.  threads: how many may sort and write at once (None: as
        many as there are processors, at most 4).  Returns Commit(sequence, durability, rows).
        """
        self._check_writable()
        if durability is not None and durability not in LEVELS:
            raise ValueError(DURABILITY_ERROR.format(durability))
        encoded = self.keys_codec.encode_array(keys)
        return self._load(
            encoded, self.values_codec.encode_array(values, encoded.count), progress, threads
        )

    def _load(
        self, keys: EncodedKeys, values: EncodedValues, progress: Progress, threads: int | None
    ) -> Commit:
        check_sizes(values, self._engine.options)
        default = min(os.cpu_count() or 1, THREADS_MOST)
        threads = default if threads is None else at_least("threads", threads, 1)
        with reporting("loading", keys.count, progress) as report:
            return loader.load(self._engine, keys, values, threads, "sync", report)

    def _load_encoded(self, keys: EncodedKeys, values: EncodedValues, durability: str) -> Commit:
        return self._load(keys, values, False, 1)

    def _put_large(self, key: bytes | bool, head: int, value: bytes) -> int:
        keys, values = one_row(key, head, value)
        sequence: int = self._load(keys, values, False, 1).sequence
        return sequence

    # -- keeping

    def transaction(self, optimistic: bool = False, durability: str | None = None) -> Transaction:
        """A transaction, for a with statement: all of what is done in it happens, or nothing.

        It reads the store as it is when it begins, and its own writes.  An exception rolls it back.
        Until it ends, all other writes to the store wait.  optimistic: they do not; the end raises
        ConflictError when something that was read has changed (cesium.retry does it again).
        durability: a higher level than the store's for its commit.
        """
        self._check_writable()
        return Transaction(self, optimistic, durability)

    def snapshot(self) -> Snapshot:
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
        return feed.changes(self, since)

    def watch(
        self, prefix: Any = None, since: int | None = None, timeout: float | None = None
    ) -> Change | None:
        """Waits for a commit that writes or removes a key under a prefix, and returns it.

        prefix: as `prefix` takes it; None: any key.  since: a sequence, after which the first such
        commit is wanted, be there one already (None: now).  timeout: seconds, after which None is
        returned; 0 only looks.  A `delete_range` counts when its bounds reach under the prefix, and
        so does a load whose rows were merged with others since.

        Commits do nothing for it: it looks at the sequence, which costs a microsecond, every 0.5 to
        20 ms, the longer the longer nothing comes, and finds a commit as much later.  The journal
        is kept for as long as it waits.  Ends with ClosedError when the store is closed.  A store
        opened with flag "r" sees other processes' commits by `refresh` alone.  Errors as of
        `changes`.
        """
        self._check_open()
        return feed.watch(self, prefix, since, timeout)

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
        """Merges everything into one run without delete markers, giving their space back.

        progress: shows a bar; or a function, called with the rows done and about how many in all.
        """
        self._check_writable()
        rows = self._view().estimated_rows()
        with event(self._engine, "compaction", rows=rows) as facts:
            facts["bytes_before"] = self._segment_bytes()
            with reporting("compacting", rows, progress) as report:
                maintenance.compact(self._engine, report)
            facts["bytes_after"] = self._segment_bytes()

    def _segment_bytes(self) -> int:
        return sum(reader.record.bytes for reader in self.core.version.segments())

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
        total = self._segment_bytes() + bytes_of(files, ("manifest-", "journal-"))
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
        if self._close_handle() and engine.leave():
            close_engine(engine)

    def __enter__(self) -> Store:
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
        key, value = self.options.key, self.options.value
        at = "" if self.options.at is None else f" at {self.options.at!r}"
        return f"<{state}cesium store {self.path!r}{at}, key={key!r}, value={value!r}>"
