"""Ordered reads: neighbours, ranges and the rest of a mapping, of a store and of its snapshots."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import Any

from cesium._blob_view import value_view
from cesium._keys import KeyCodec
from cesium._reads import TableReads
from cesium.casting import at_least
from cesium.errors import SchemaError
from cesium.looks import table_look
from cesium.ranges import Encoded, Range
from cesium.time_bounds import beside_time, prefix_of_time
from cesium.typed import K, V


def decoded_bound(codec: KeyCodec, bound: Encoded) -> Any:
    """A bound as a key; as it is where it is none, such as a tuple with some parts only."""
    with contextlib.suppress(Exception):
        return codec.decode_key(bound)
    return bound


class OrderedReads(TableReads[K, V]):
    """A mapping in key order for reading, with its ranges."""

    def _title(self) -> str:
        """What it is, in one line; reads nothing."""
        return object.__repr__(self)

    def __repr__(self) -> str:
        return table_look(self, self._title()).text()

    def _repr_html_(self) -> str:
        return table_look(self, self._title()).html()

    @property
    @abstractmethod
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's columns; () where it has none."""

    def first(self) -> tuple[K, V]:
        """The pair with the smallest key; KeyError when there is none."""
        return self._edge(False)

    def last(self) -> tuple[K, V]:
        """The pair with the largest key; KeyError when there is none."""
        return self._edge(True)

    def _edge(self, reverse: bool) -> tuple[K, V]:
        pair = self._nearest(self._lowest, None, reverse)
        if pair is None:
            raise KeyError("the table is empty")
        return pair

    def floor(self, key: K) -> tuple[K, V] | None:
        """The pair with the largest key <= `key`, or None."""
        return self._nearest(self._lowest, self._beside(key, True), True)

    def lower(self, key: K) -> tuple[K, V] | None:
        """The pair with the largest key < `key`, or None."""
        return self._nearest(self._lowest, self._beside(key, False), True)

    def ceiling(self, key: K) -> tuple[K, V] | None:
        """The pair with the smallest key >= `key`, or None."""
        return self._nearest(self._beside(key, False), None, False)

    def higher(self, key: K) -> tuple[K, V] | None:
        """The pair with the smallest key > `key`, or None."""
        return self._nearest(self._beside(key, True), None, False)

    def _beside(self, key: Any, after: bool) -> Encoded | None:
        """Where a range begins or ends beside a key, before it or after it."""
        try:
            bound: Encoded | None = self.keys_codec.upper_bound(key, after)
        except SchemaError as error:
            return beside_time(self.keys_codec, key, after, error)
        return bound

    def _bounds(
        self, lo: Any, hi: Any, inclusive: tuple[bool, bool]
    ) -> tuple[Encoded | None, Encoded | None]:
        try:
            return self._encoded_bounds(lo, hi, inclusive)
        except SchemaError:  # or times of other forms
            with_lower, with_upper = inclusive
            return (
                self._lowest if lo is None else self._beside(lo, not with_lower),
                None if hi is None else self._beside(hi, with_upper),
            )

    def range(
        self,
        lo: Any = None,
        hi: Any = None,
        inclusive: tuple[bool, bool] = (True, False),
        reverse: bool = False,
        limit: int | None = None,
    ) -> Range[K, V]:
        """The rows between two keys, None being no bound; nothing is read before it is asked for.

        inclusive: whether the bounds themselves belong.  limit: at most so many rows, from the end
        that the direction starts at.  A partial tuple as a bound stands for all its extensions.
        Bounds of times may be ISO text, such as "2013-07-01": docs/ranges.md.
        """
        self._check_open()
        if limit is not None:
            limit = at_least("limit", limit, 0)
        lower, upper = self._bounds(lo, hi, inclusive)
        return Range(self, lower, upper, reverse, limit)

    def prefix(self, prefix: Any, partial: bool = False) -> Range[K, V]:
        """The rows whose key begins so: a piece of a str or bytes key, or whole parts of a tuple.

        partial: the last part of the tuple is a leading piece of a str or bytes part.
        """
        self._check_open()
        try:
            lower, upper = self.keys_codec.prefix_bounds(prefix, partial)
        except SchemaError as error:
            lower, upper = prefix_of_time(self.keys_codec, prefix, partial, error)
        return Range(self, lower, upper, False, None)

    def _slice(self, interval: slice) -> Range[K, V]:
        if interval.step is not None:
            raise TypeError(f"a slice of a store has no step, so not {interval.step!r}")
        return self.range(interval.start, interval.stop)

    def _decode_bound(self, bound: Encoded) -> Any:
        return decoded_bound(self.keys_codec, bound)

    def keys(self) -> Range[K, V, K]:
        """All keys in order, as a range."""
        return self.range().keys()

    def values(self) -> Range[K, V, V]:
        """All values in key order, as a range."""
        return self.range().values()

    def items(self) -> Range[K, V]:
        """All (key, value) pairs in order, as a range."""
        return self.range()

    def view(self, key: K) -> memoryview:
        """The value of `key` as a read-only memoryview, of a table whose values are bytes.

        A value in a blob file is not copied: the view is of the mapped file, checked when this
        returns.  It stays valid for as long as it is held, whatever becomes of the key, the file or
        the store; a drive that fails, or a file cut off, after that ends the process (SIGBUS) where
        the bytes are touched.  KeyError without such a key, TypeError where values are not bytes.
        """
        return value_view(self, key)
