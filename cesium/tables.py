"""Tables: the writes, loads and feeds of one table of a store.

Everything that a program calls in a loop is in the compiled base class (cesium._core).  A store is
its default table (cesium/store.py), and has others, each of which is a Table.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from cesium import feed, loader, maintenance
from cesium._core import DURABILITY_ERROR, LEVELS, Commit, CompiledTable
from cesium._keys import EncodedKeys
from cesium._ranges import View
from cesium._values import EncodedValues
from cesium.casting import at_least
from cesium.catalog import find, schemas
from cesium.engine import StoreEngine
from cesium.errors import ReadOnlyError
from cesium.events import event
from cesium.feed import Change
from cesium.frame_rows import FrameRows, Part
from cesium.incoming import arrow_rows
from cesium.key_names import with_names
from cesium.large import check_sizes, one_row
from cesium.load_stream import load_stream
from cesium.ordered import OrderedReads
from cesium.progress import Progress, reporting
from cesium.revisions import Revisions
from cesium.table_engine import TableEngine
from cesium.transactions import Transaction, TransactionReads
from cesium.typed import K, V

if TYPE_CHECKING:
    from cesium.store import Store

THREADS_MOST = 4  # what a load takes when nobody says: the drive is full by then


class TableHandle(OrderedReads[K, V], Revisions[K, V], CompiledTable[K, V]):
    """A table of an open store: a mapping in key order, with batches, ranges and loads beside it.

    Two are equal only if they are the same object.
    """

    _engine: StoreEngine
    _table: TableEngine

    @property
    @abstractmethod
    def path(self) -> str:
        """Where it is."""

    @property
    def key(self) -> Any:
        """The key type, as `cesium.open` takes it."""
        return self.keys_codec.spec

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's columns, as frames have them; () where it has none, and they are
        "key", or "key_0", "key_1", ..."""
        return self._table.record.key_names

    @property
    def value(self) -> Any:
        """The value type, as `cesium.open` takes it."""
        return self.values_codec.spec

    @abstractmethod
    def transaction(self, optimistic: bool = False, durability: str | None = None) -> Transaction:
        """A transaction of the store."""

    @abstractmethod
    def _inside(self, transaction: Transaction) -> TransactionReads:
        """The table in a transaction."""

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise ReadOnlyError("the store was opened with flag='r'")

    # -- batches

    def update(self, pairs: Mapping[K, V] | Iterable[tuple[K, V]]) -> Commit:
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
        update_many(keys, np.add, 1) counts.  Other writers wait meanwhile.
        """
        with self.transaction(durability=durability) as transaction:
            self._inside(transaction).update_many(keys, function, *arguments, default=default)
        assert transaction.committed is not None
        return transaction.committed

    def clear(self) -> Commit:
        """Removes everything, in one atomic commit."""
        return self.delete_range(None, None)

    def _delete_slice(self, interval: slice) -> None:
        if interval.step is not None:
            raise TypeError(f"a slice of a table has no step, so not {interval.step!r}")
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
        values: Any = None,
        progress: Progress = False,
        threads: int | None = None,
        durability: str | None = None,
        *,
        key: str | Iterable[str] | None = None,
    ) -> Commit:
        """Loads a batch of any size and order as one commit, straight into segments.

        keys, values: as for `put_many`, or a frame and key=, which names its key columns; an Arrow
        stream may be larger than memory.  Of equal keys the last wins, and it wins over what is
        stored.  All or nothing: until the commit, which is durable when this returns, nothing is
        visible.  progress: shows a bar; or a function, called with the rows done and the rows in
        all, from whatever thread works.  threads: how many may sort and write at once (None: as
        many as there are processors, at most 4).  Returns Commit(sequence, durability, rows).
        """
        self._check_writable()
        if durability is not None and durability not in LEVELS:
            raise ValueError(DURABILITY_ERROR.format(durability))
        if values is None:
            return self._load_frame(self._rows_of(keys, key), progress, threads)
        encoded = self.keys_codec.encode_array(arrow_rows(keys))
        return self._load(
            encoded,
            self.values_codec.encode_array(arrow_rows(values), encoded.count),
            progress,
            threads,
        )

    def _rows_of(self, frame: Any, key: Any) -> FrameRows:
        return FrameRows(frame, key, self.keys_codec, self.values_codec, self.key_names)

    def _frame_batch(self, frame: Any, key: Any) -> Part:
        return self._rows_of(frame, key).whole()

    def _load_frame(self, rows: FrameRows, progress: Progress, threads: int | None) -> Commit:
        with reporting("loading", 0, progress) as report:
            return load_stream(self._table, rows.parts(), threads_of(threads), "sync", report)

    def _load(
        self, keys: EncodedKeys, values: EncodedValues, progress: Progress, threads: int | None
    ) -> Commit:
        check_sizes(values, self._engine.options)
        with reporting("loading", keys.count, progress) as report:
            return loader.load(self._table, keys, values, threads_of(threads), "sync", report)

    def _load_encoded(self, keys: EncodedKeys, values: EncodedValues, durability: str) -> Commit:
        return self._load(keys, values, False, 1)

    def _put_large(self, key: bytes | bool, head: int, value: bytes) -> int:
        keys, values = one_row(key, head, value)
        sequence: int = self._load(keys, values, False, 1).sequence
        return sequence

    def watch(
        self, prefix: Any = None, since: int | None = None, timeout: float | None = None
    ) -> Change | None:
        """Waits for a commit that writes or removes a key under a prefix of this table, and returns
        it: what it did to the table.

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
        return feed.watch(self, self._table, prefix, since, timeout)

    def _compact(self, tables: Iterable[TableEngine], progress: Progress) -> None:
        tables = list(tables)
        self._check_writable()
        rows = sum(View(table.core).estimated_rows() for table in tables)
        with event(self._engine, "compaction", rows=rows) as facts:
            facts["bytes_before"] = bytes_of_segments(tables)
            with reporting("compacting", rows, progress) as report:
                maintenance.compact(self._engine, tables, report)
            facts["bytes_after"] = bytes_of_segments(tables)


def threads_of(threads: int | None) -> int:
    """How many threads may load, when so many are asked for."""
    if threads is None:
        return min(os.cpu_count() or 1, THREADS_MOST)
    return at_least("threads", threads, 1)


def bytes_of_segments(tables: Iterable[TableEngine]) -> int:
    """What the segments of tables take on the drive."""
    return sum(reader.record.bytes for table in tables for reader in table.segments())


class Table(TableHandle[K, V]):
    """A table of a store, beside its default one: the reads, writes and ranges of a store.

    Made by `Store.table`; closed with the store's handle that made it, which it keeps open.  Its
    commits are those of the store: one journal, one sequence.
    """

    def __new__(cls, store: Store, table: TableEngine) -> Self:
        return super().__new__(
            cls, table.core, *table.codecs, store.options.durability, store.read_only
        )

    def __init__(self, store: Store, table: TableEngine) -> None:
        self._whole = store
        self._engine = store._engine
        self._table = table
        self.name = table.record.name

    @property
    def path(self) -> str:
        """What messages call it: its name and the store's path."""
        return self._table.path

    def transaction(self, optimistic: bool = False, durability: str | None = None) -> Transaction:
        """A transaction of the store, of which `table(name)` is this table."""
        self._check_open()
        return self._whole.transaction(optimistic, durability)

    def _inside(self, transaction: Transaction) -> TransactionReads:
        return transaction.table(self.name)

    def changes(self, since: int | None = None) -> Iterator[Change]:
        """The commits after a sequence that did something to this table, and what: see
        `Store.changes`."""
        self._check_open()
        return feed.changes(self, self._table, since)

    def compact(self, progress: Progress = False) -> None:
        """Merges the table into one run without delete markers, giving their space back."""
        self._compact([self._table], progress)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled table reopens its store read-only, as a pickled store does."""
        self._check_open()
        return _reopen, (self._whole, self.name)

    def _title(self) -> str:
        state = "closed " if self.closed else "read-only " if self.read_only else ""
        key = with_names(self.key, self.key_names)
        return f"<{state}cesium {self.path}, key={key!r}, value={self.value!r}>"


def _reopen(store: Store, name: str) -> Table:
    return store.table(name)


class Tables(Mapping[str, Table]):
    """The tables of a store by name, but for the default one, which is the store itself.

    A live view: it has what is there when it is asked.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def _names(self) -> list[str]:
        self._store._check_open()
        return [record.name for record in schemas(self._store._engine)]

    def __getitem__(self, name: str) -> Table:
        if name not in self:
            raise KeyError(name)
        return self._store.table(name)

    def __contains__(self, name: object) -> bool:
        self._store._check_open()
        return isinstance(name, str) and find(self._store._engine, name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"<tables of {self._store.path!r}: {self._names()!r}>"
