"""Transactions: reads and writes of a store that happen at one moment, or not at all.

Both kinds read the store as it was when they began, with their own writes over it, and commit as
one journal frame, so a crash leaves all of a transaction or nothing.

- A transaction takes the turn: until it ends, every other commit to the store waits.  What it read
  is so when it commits; it never fails for the sake of others.
- An optimistic one takes nothing.  Its commit looks, under the writer lock, whether all that it
  read would be read again: keys that were there or not, values, ranges with the rows that others
  may have put into them.  If so, it might as well have run at that very moment, so any set of
  transactions is serializable (backward validation: Kung and Robinson, "On Optimistic Methods for
  Concurrency Control", 1981; by values, so a change that was changed back is none).
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from cesium._core import KEEP
from cesium._keys import EncodedKeys
from cesium._memtable import Memtable
from cesium._reads import MISSING
from cesium._transaction import DraftReads, TransactionLife, WholeDraft
from cesium.errors import ConflictError, Error
from cesium.frame_rows import FrameRows
from cesium.incoming import arrow_rows
from cesium.large import check_drafted
from cesium.ordered import OrderedReads
from cesium.revisions import Revisions
from cesium.typed import K, V

if TYPE_CHECKING:
    from cesium.store import Store
    from cesium.tables import TableHandle

PAUSE_MOST = 0.05  # seconds, between two tries
T = TypeVar("T")


class TransactionReads(OrderedReads[K, V], Revisions[K, V], DraftReads[K, V]):
    """What a transaction and its tables have in common: the reads, writes and ranges of a table."""

    # -- writes

    def __setitem__(self, key: K, value: V) -> None:
        if isinstance(key, slice):
            raise TypeError("a slice cannot be assigned to; use put_many(keys, values)")
        self.put(key, value)

    def __delitem__(self, key: K | slice) -> None:
        if isinstance(key, slice):
            if key.step is not None:
                raise TypeError(f"a slice of a store has no step, so not {key.step!r}")
            self.delete_range(key.start, key.stop)
        elif key in self:
            self.delete(key)
        else:
            raise KeyError(key)

    def _revise(self, key: Any, decision: Callable[[Any], Any]) -> Any:
        old = self.get(key, MISSING)
        new = decision(old)
        if new is MISSING:
            self.delete(key)
        elif new is not KEEP:
            self.put(key, new)
        return new

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: T, /) -> V | T: ...
    def pop(self, key: K, *default: Any) -> Any:
        """Removes `key` and returns its value; `default`, or KeyError, when it is not there."""
        if len(default) > 1:
            raise TypeError(f"pop takes a key and one default, not {len(default)}")
        value = self.get(key, MISSING)
        if value is not MISSING:
            self.delete(key)
        elif not default:
            raise KeyError(key)
        return default[0] if value is MISSING else value

    def setdefault(self, key: K, default: V) -> V:
        """The value of `key`; where there is none, stores `default` and returns it."""
        value: Any = self.get(key, MISSING)
        if value is MISSING:
            self.put(key, default)
        stored: V = default if value is MISSING else value
        return stored

    def put_many(
        self, keys: Any, values: Any = None, *, key: str | Iterable[str] | None = None
    ) -> None:
        """Stores a batch; the last of equal keys wins.  As `Store.put_many` takes it."""
        self._check_writable()
        if values is None:
            encoded, rows = self._rows_of(keys, key).whole()
        else:
            encoded = self.keys_codec.encode_array(arrow_rows(keys))
            rows = self.values_codec.encode_array(arrow_rows(values), encoded.count)
        check_drafted(rows)
        self._write_batch(encoded, rows)

    def _rows_of(self, frame: Any, key: Any) -> FrameRows:
        return FrameRows(frame, key, self.keys_codec, self.values_codec, self.key_names)

    def delete_many(self, keys: Any) -> None:
        """Removes a batch of keys, whether or not they are there."""
        self._check_writable()
        self._write_batch(self.keys_codec.encode_array(keys), None)

    def update(self, pairs: Mapping[K, V] | Iterable[tuple[K, V]]) -> None:
        """Stores every pair of a mapping, or of an iterable of pairs."""
        rows = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
        self.put_many([key for key, _ in rows], [value for _, value in rows])

    def update_many(
        self, keys: Any, function: Callable[..., Any], *arguments: Any, default: Any = None
    ) -> None:
        """Stores function(values, *arguments) for a batch of keys: see `Store.update_many`."""
        if not callable(function):
            raise TypeError(f"update_many takes a function or a ufunc, not {function!r}")
        check_each_once(self.keys_codec.encode_array(keys))
        values, _ = self.get_many(keys, default)
        self.put_many(keys, function(values, *arguments))

    def delete_range(self, lo: Any, hi: Any) -> None:
        """Removes all keys with lo <= key < hi, None being no bound."""
        self._check_writable()
        lower, upper = self._bounds(lo, hi, (True, False))
        if lower is not None:
            self._delete_encoded(lower, upper)

    def clear(self) -> None:
        """Removes everything."""
        self.delete_range(None, None)

    def _check_writable(self) -> None:
        self._check_open()

    def view(self, key: K) -> memoryview:
        """The value of `key` as a read-only memoryview: see `Store.view`."""
        self.get(key)  # counts as read
        return super().view(key)


class TransactionTable(TransactionReads[K, V]):
    """A table inside of a transaction: its reads, writes and ranges.

    Made by `Transaction.table`; it is committed and rolled back with the transaction.
    """

    def __new__(cls, whole: Transaction, table: TableHandle) -> Self:
        return super().__new__(
            cls, table.core, table.keys_codec, table.values_codec, table, whole.life
        )

    def __init__(self, whole: Transaction, table: TableHandle) -> None:
        self._whole = whole  # which ends when nobody has it any more
        self._path = table.path
        self._key_names = table.key_names

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's columns; () where it has none."""
        return self._key_names

    def _title(self) -> str:
        return f"<{self._path} in a transaction>"


class Transaction(WholeDraft[K, V], TransactionReads[K, V]):
    """A transaction of a store: the reads, writes and ranges of the store, all or nothing.

    Made by `Store.transaction`, for a `with` statement: it begins there, is committed at its end,
    and rolled back by an exception.  What is written through it is seen through it alone, until
    then.  It has the store's default table; `table` gives the others.  Iterators and ranges read
    what there was when they were started.  Everything is in memory until the commit, beside
    `memory_limit`, and twice more during the commit, which is at most 1 GiB; values above 16 MiB
    are LimitError.
    """

    def __new__(cls, store: Store[K, V], optimistic: bool, durability: str | None) -> Self:
        engine = store._engine
        return super().__new__(
            cls, store.core, store.keys_codec, store.values_codec, store,
            TransactionLife(store, engine.turn, optimistic, durability), engine.cores,
        )  # fmt: skip

    def __init__(self, store: Store[K, V], optimistic: bool, durability: str | None) -> None:
        self._store = store

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's columns; () where it has none."""
        return self._store.key_names

    def table(self, name: str) -> TransactionTable:
        """A table of the store, by its name, inside of the transaction; KeyError without it."""
        self._check_open()
        return TransactionTable(self, self._store.table(name))

    def savepoint(self) -> Savepoint:
        """A mark in the transaction, back to which it can be rolled: all tables of it."""
        return Savepoint(self)

    def _title(self) -> str:
        kind = "optimistic transaction" if self.optimistic else "transaction"
        state = "open" if self.active else "committed" if self.committed else "not open"
        return f"<{state} {kind} of {self._store.path!r}>"


class Savepoint:
    """A mark in a transaction: `rollback` undoes what was written since, as often as called.

    In a `with` statement an exception rolls back to it, and goes on; its end, otherwise, is the end
    of the mark.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._marks: dict[int, Memtable | None] = transaction._mark()

    def rollback(self) -> None:
        """Undoes what was written since; Error when the transaction was rolled back further."""
        self._transaction._cut(self._marks)

    def __enter__(self) -> Savepoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._transaction.active:
            return
        if error is None:
            self._transaction._join(self._marks)
        else:
            with contextlib.suppress(Error):  # rolled back further: that error is not the news
                self.rollback()


def check_each_once(encoded: EncodedKeys) -> None:
    """ValueError when a batch has a key twice: its new value could not depend on the first one."""
    rows: list[Any]
    if encoded.heads is not None:
        rows = encoded.heads.tolist()
    else:
        assert encoded.data is not None and encoded.offsets is not None
        data, ends = encoded.data.tobytes(), encoded.offsets.tolist()
        rows = [data[start:end] for start, end in itertools.pairwise(ends)]
    if len(set(rows)) == len(rows):
        return
    seen: set[Any] = set()
    for number, row in enumerate(rows):
        if row in seen:
            raise ValueError(f"update_many takes each key once; that of row {number} came before")
        seen.add(row)


def retry(function: Callable[[], T], attempts: int = 100) -> T:
    """Calls `function`, and again when it ends in ConflictError; returns what it returns.

    function: does a whole optimistic transaction.  attempts: after so many the ConflictError is
    raised.  Between two, random pauses that grow up to 50 ms, so that rivals part.
    """
    for pause in pauses(attempts):
        try:
            return function()
        except ConflictError:
            time.sleep(pause)
    return function()


def pauses(attempts: int) -> Iterator[float]:
    """Seconds to wait after each attempt but the last; ValueError for fewer than one."""
    if attempts < 1:
        raise ValueError(f"attempts is at least 1, not {attempts}")
    longest = (min(PAUSE_MOST, 0.0005 * 2**attempt) for attempt in range(attempts - 1))
    return (random.uniform(0.0, seconds) for seconds in longest)
