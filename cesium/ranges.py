"""The ordered query: a range of a table, read in whatever way is asked for.

A Range is a question, not a result: every terminal operation (`len`, `for`, `arrays`, `batches`,
...) takes its own snapshot of the table, so it may be kept and asked again; a range of a Snapshot
gives the same rows each time.  Ranges are immutable and may be shared by threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic

from cesium._ranges import EncodedRange, RangeReader, View
from cesium.casting import at_least
from cesium.errors import SchemaError
from cesium.looks import bound_text, range_look
from cesium.range_columns import chosen, read_fields
from cesium.range_frames import FrameReads
from cesium.reductions import Reductions
from cesium.typed import K, R, V

if TYPE_CHECKING:
    from cesium.ordered import OrderedReads

PAIRS, KEYS, VALUES = 0, 1, 2
_NOTHING = object()
Encoded = int | bytes


class Range(FrameReads, Reductions, Generic[K, V, R]):
    """Rows of a table with lower <= key < upper, in key order or backwards, at most `limit`.

    Made by `Store.range`, `Store.prefix`, `store[lo:hi]`; iterating yields (key, value) pairs.
    """

    __slots__ = ("_limit", "_lower", "_reverse", "_store", "_upper", "_yields")

    @classmethod
    def __class_getitem__(cls, parameters: Any) -> GenericAlias:  # two are as well as three
        return GenericAlias(cls, parameters)

    def __init__(
        self,
        store: OrderedReads[K, V],
        lower: Encoded | None,
        upper: Encoded | None,
        reverse: bool,
        limit: int | None,
        yields: int = PAIRS,
    ) -> None:
        self._store = store
        self._lower = lower  # None: nothing can follow, the range is empty
        self._upper = upper  # None: no upper end
        self._reverse = reverse
        self._limit = limit
        self._yields = yields

    def _reader(self, values: bool) -> RangeReader:
        store = self._store
        store._check_open()
        lower = store._lowest if self._lower is None else self._lower
        limit = 0 if self._lower is None else self._limit
        store._note_range(lower, self._upper, self._reverse, limit, values)
        return RangeReader(
            store._view(), EncodedRange(store.core, lower, self._upper), self._reverse, limit
        )

    def _reader_of(self, view: View) -> RangeReader:
        """One more reader of a view that a reader had."""
        core = self._store.core
        lower = self._store._lowest if self._lower is None else self._lower
        limit = 0 if self._lower is None else self._limit
        return RangeReader(view, EncodedRange(core, lower, self._upper), self._reverse, limit)

    def __iter__(self) -> Iterator[R]:
        if self._lower is None:
            self._store._check_open()
            return iter(())
        return self._store._rows(self._lower, self._upper, self._reverse, self._limit, self._yields)

    def __len__(self) -> int:
        """The exact number of rows."""
        return int(self._reader(False).count())

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __contains__(self, item: Any) -> bool:
        """Whether iterating yields the item: a pair; of keys() a key, of values() a value."""
        if self._yields == VALUES:
            return any(value == item for value in self)
        if self._yields == KEYS:
            return self._holds(item) and item in self._store
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key, value = item
        return self._holds(key) and bool(self._store.get(key, _NOTHING) == value)

    def __getitem__(self, key: K) -> V:
        """The value of a key of the range, as it is now; KeyError outside.  So dict(view) works."""
        if not self._holds(key):
            raise KeyError(key)
        value: V = self._store[key]
        return value

    def _holds(self, key: Any) -> bool:
        """Whether the bounds and the limit allow a key."""
        store = self._store
        store._check_open()
        encoded: Any = store.keys_codec.lookup_key(key)  # of the same form as the bounds
        if encoded is None or self._lower is None or encoded < self._lower:
            return False
        if self._upper is not None and encoded >= self._upper:
            return False
        if self._limit is None:
            return True
        before = Range(store, self._lower, encoded, False, None)
        if self._reverse:
            after = store.keys_codec.lower_bound(key, False)
            before = Range(store, after, self._upper, False, None)
        return len(before) < self._limit

    def __reversed__(self) -> Iterator[R]:
        """The same rows backwards; a limit is applied first."""
        if self._limit is None or self._lower is None:
            turned = Range(
                self._store, self._lower, self._upper, not self._reverse, None, self._yields
            )
            return iter(turned)
        rows = list(self)
        rows.reverse()
        return iter(rows)

    def keys(self) -> Range[K, V, K]:
        """The same range, yielding keys."""
        return self._with(KEYS)

    def values(self) -> Range[K, V, V]:
        """The same range, yielding values."""
        return self._with(VALUES)

    def items(self) -> Range[K, V]:
        """The same range, yielding (key, value) pairs."""
        return self._with(PAIRS)

    def _with(self, yields: int) -> Range[K, V, Any]:
        return Range(self._store, self._lower, self._upper, self._reverse, self._limit, yields)

    def arrays(self, threads: int | None = None, columns: Iterable[str] | None = None) -> Any:
        """(keys, values) as arrays, in one call and without a Python object per row.

        Keys: an array (composite keys: a tuple of arrays; str and bytes: a Column).  Values: an
        array (structured for structured values), or a Column, or an object array for JSON and user
        codecs.  A range of keys() or values() gives that one.  threads: how many may copy at once
        (None: one).  columns: names of fields of structured values; the values have these alone,
        and the others are not touched.
        """
        count = 1 if threads is None else at_least("threads", threads, 1)
        if columns is not None:
            return self._fields(columns, self._reader(True), None)[1]
        store = self._store
        empty = self._lower is None
        return store._arrays(
            store._lowest if self._lower is None else self._lower, self._upper, self._reverse,
            0 if empty else self._limit, self._yields, count,
        )  # fmt: skip

    def batches(self, rows: int = 65536, columns: Iterable[str] | None = None) -> Iterator[Any]:
        """The rows of one snapshot in pieces of at most `rows`, each as `arrays` gives them."""
        rows = at_least("a batch's number of rows", rows, 1)
        names = None if columns is None else chosen(columns)
        reader = self._reader(self._yields != KEYS)

        def pieces() -> Iterator[Any]:
            while True:
                self._store._check_open()
                if names is not None:
                    count, found = self._fields(names, reader, rows)
                    if count == 0:
                        return
                    yield found
                    continue
                keys, values = reader.read(
                    self._store.keys_codec, self._store.values_codec, rows,
                    self._yields != VALUES, self._yields != KEYS,
                )  # fmt: skip
                if not (keys or values):  # of one length, or None
                    return
                yield self._pick(keys, values)

        return pieces()

    def _fields(
        self, columns: Iterable[str], reader: RangeReader, rows: int | None
    ) -> tuple[int, Any]:
        if self._yields == KEYS:
            raise SchemaError("a range of keys has no fields to choose")
        count, keys, values = read_fields(self._store, columns, self._yields == PAIRS, reader, rows)
        return count, (keys, values) if self._yields == PAIRS else values

    def _pick(self, keys: Any, values: Any) -> Any:
        store = self._store
        if self._yields == KEYS:
            return store.keys_codec.decode_array(keys)
        if self._yields == VALUES:
            return store.values_codec.decode_array(values)
        return store.keys_codec.decode_array(keys), store.values_codec.decode_array(values)

    def __repr__(self) -> str:
        return range_look(self, self._title()).text()

    def _repr_html_(self) -> str:
        return range_look(self, self._title()).html()

    def _title(self) -> str:
        """What it is, in one line; reads nothing."""

        def shown(bound: Encoded | None, end: str) -> str:
            return end if bound is None else bound_text(self._store.keys_codec, bound)

        table = self._store._title()
        what = ("", ".keys()", ".values()")[self._yields]
        extras = (", reverse=True" if self._reverse else "") + (
            f", limit={self._limit}" if self._limit is not None else ""
        )
        if self._lower is None:
            return f"<empty range of {table}>"
        lower = "..." if self._lower == self._store._lowest else shown(self._lower, "...")
        return f"<range [{lower}, {shown(self._upper, '...')}){extras}{what} of {table}>"
