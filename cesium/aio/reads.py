"""Reads as coroutines: those of a store, and of its snapshots.

Each is the call of the same name of the blocking table, made by a thread: any read may have to wait
for the drive, so none is made in the event loop.  That costs tens of microseconds a call; for many
keys there is `get_many`, for many rows `range`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cesium.aio.ranges import Range
from cesium.aio.workers import Workers
from cesium.ordered import OrderedReads


class Reads:
    """A mapping in key order for reading, awaited."""

    _table: OrderedReads
    _readers: Workers

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's columns; () where it has none."""
        return self._table.key_names

    @property
    def closed(self) -> bool:
        """Whether it was closed; every call raises ClosedError then."""
        return self._readers.refuses or self._table.closed

    async def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`: see cesium.Store.get."""
        return await self._readers.run(self._table.get, key, default)

    async def contains(self, key: Any) -> bool:
        """Whether `key` is there: `in` of cesium.Store."""
        return await self._readers.run(self._table.__contains__, key)

    async def get_many(
        self, keys: Any, default: Any = None, threads: int | None = None
    ) -> tuple[Any, npt.NDArray[np.bool_]]:
        """(values, found) of a batch of keys: see cesium.Store.get_many."""
        return await self._readers.run(self._table.get_many, keys, default, threads)

    async def contains_many(self, keys: Any, threads: int | None = None) -> npt.NDArray[np.bool_]:
        """Which keys of a batch are there: see cesium.Store.contains_many."""
        return await self._readers.run(self._table.contains_many, keys, threads)

    async def count(self) -> int:
        """The exact number of rows: `len` of cesium.Store."""
        return await self._readers.run(self._table.__len__)

    async def first(self) -> tuple[Any, Any]:
        """The pair with the smallest key: see cesium.Store.first."""
        return await self._readers.run(self._table.first)

    async def last(self) -> tuple[Any, Any]:
        """The pair with the largest key: see cesium.Store.last."""
        return await self._readers.run(self._table.last)

    async def floor(self, key: Any) -> tuple[Any, Any] | None:
        """The pair with the largest key <= `key`, or None: see cesium.Store.floor."""
        return await self._readers.run(self._table.floor, key)

    async def lower(self, key: Any) -> tuple[Any, Any] | None:
        """The pair with the largest key < `key`, or None: see cesium.Store.lower."""
        return await self._readers.run(self._table.lower, key)

    async def ceiling(self, key: Any) -> tuple[Any, Any] | None:
        """The pair with the smallest key >= `key`, or None: see cesium.Store.ceiling."""
        return await self._readers.run(self._table.ceiling, key)

    async def higher(self, key: Any) -> tuple[Any, Any] | None:
        """The pair with the smallest key > `key`, or None: see cesium.Store.higher."""
        return await self._readers.run(self._table.higher, key)

    async def view(self, key: Any) -> memoryview:
        """The value of `key` as a read-only memoryview: see cesium.Store.view."""
        return await self._readers.run(self._table.view, key)

    # -- ranges: nothing is read by making one

    def range(
        self,
        lo: Any = None,
        hi: Any = None,
        inclusive: tuple[bool, bool] = (True, False),
        reverse: bool = False,
        limit: int | None = None,
    ) -> Range:
        """The rows between two keys, None being no bound: see cesium.Store.range."""
        return Range(self._readers, self._table.range(lo, hi, inclusive, reverse, limit))

    def prefix(self, prefix: Any, partial: bool = False) -> Range:
        """The rows whose key begins so: see cesium.Store.prefix."""
        return Range(self._readers, self._table.prefix(prefix, partial))

    def keys(self) -> Range:
        """All keys in order, as a range."""
        return Range(self._readers, self._table.keys())

    def values(self) -> Range:
        """All values in key order, as a range."""
        return Range(self._readers, self._table.values())

    def items(self) -> Range:
        """All (key, value) pairs in order, as a range."""
        return Range(self._readers, self._table.items())
