"""The calls of a table for asyncio: of a store, which is its default table, and of a Table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cesium._core import Commit
from cesium.aio.ranges import Rows
from cesium.aio.revisions import Revisions
from cesium.aio.transactions import check_not_inside
from cesium.aio.workers import Workers
from cesium.feed import Change, Watch, deadline_of
from cesium.progress import Progress
from cesium.tables import Table as BlockingTable
from cesium.tables import TableHandle

if TYPE_CHECKING:
    from cesium.aio.store import Store

P = ParamSpec("P")
T = TypeVar("T")


class TableCalls(Revisions):
    """A table whose calls are awaited."""

    _table: TableHandle
    _writers: Workers

    def _whole(self) -> Store:
        """The store that it is of."""
        raise NotImplementedError

    async def _write(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        check_not_inside(self._whole())
        return await self._writers.run(call, *args, **named)

    # -- single keys

    async def put(self, key: Any, value: Any, durability: str | None = None) -> int:
        """Stores `value` under `key`; the commit's sequence: see cesium.Store.put."""
        return await self._write(self._table.put, key, value, durability)

    async def delete(self, key: Any, durability: str | None = None) -> int:
        """Removes `key`, whether or not it is there: see cesium.Store.delete."""
        return await self._write(self._table.delete, key, durability)

    # -- batches

    async def put_many(self, keys: Any, values: Any, durability: str | None = None) -> Commit:
        """Stores a batch in one commit: see cesium.Store.put_many."""
        return await self._write(self._table.put_many, keys, values, durability)

    async def delete_many(self, keys: Any, durability: str | None = None) -> Commit:
        """Removes a batch of keys in one commit: see cesium.Store.delete_many."""
        return await self._write(self._table.delete_many, keys, durability)

    async def delete_range(self, lo: Any, hi: Any, durability: str | None = None) -> Commit:
        """Removes all keys with lo <= key < hi: see cesium.Store.delete_range."""
        return await self._write(self._table.delete_range, lo, hi, durability)

    async def update(self, pairs: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Commit:
        """Stores every pair in one commit: see cesium.Store.update."""
        return await self._write(self._table.update, pairs)

    async def update_many(
        self,
        keys: Any,
        function: Callable[..., Any],
        *arguments: Any,
        default: Any = None,
        durability: str | None = None,
    ) -> Commit:
        """Stores function(values, *arguments) for a batch: see cesium.Store.update_many."""
        return await self._write(
            self._table.update_many,
            keys,
            function,
            *arguments,
            default=default,
            durability=durability,
        )

    async def clear(self) -> Commit:
        """Removes everything in one commit: see cesium.Store.clear."""
        return await self._write(self._table.clear)

    async def bulk_load(
        self,
        keys: Any,
        values: Any,
        progress: Progress = False,
        threads: int | None = None,
        durability: str | None = None,
    ) -> Commit:
        """Loads a batch of any size as one commit: see cesium.Store.bulk_load."""
        return await self._write(self._table.bulk_load, keys, values, progress, threads, durability)

    async def watch(
        self, prefix: Any = None, since: int | None = None, timeout: float | None = None
    ) -> Change | None:
        """Waits for a commit under a prefix, and returns it: see cesium.Store.watch.

        No thread waits: one looks now and then, for a moment.
        """
        deadline = deadline_of(timeout)
        table = self._table
        run = self._readers.run
        watching = await run(Watch, table, table._table, prefix, since)
        await run(watching.__enter__)
        try:
            while True:
                found = await run(watching.look)
                left = deadline - time.monotonic()
                if found is not None or left <= 0:
                    return found
                await asyncio.sleep(min(watching.pause, left))
        finally:
            watching.__exit__()  # lets go of the pin: nothing that waits


class Table(TableCalls):
    """A table of a store, beside its default one: see cesium.Table.

    Made by `Store.table`; its calls are made by the threads of the store.
    """

    _table: BlockingTable

    def __init__(self, store: Store, table: BlockingTable) -> None:
        self._store = store
        self._table = table
        self._readers = store._readers
        self._writers = store._writers

    @property
    def name(self) -> str:
        """Its name."""
        return self._table.name

    @property
    def path(self) -> str:
        """What messages call it: its name and the store's path."""
        return self._table.path

    def _whole(self) -> Store:
        return self._store

    def changes(self, since: int | None = None) -> Rows:
        """The commits that did something to the table, for `async for`: see Store.changes."""
        return Rows(self._readers, lambda: self._table.changes(since), 1)

    async def compact(self, progress: Progress = False) -> None:
        """Merges the table into one run: see cesium.Table.compact."""
        await self._readers.run(self._table.compact, progress)

    def __repr__(self) -> str:
        return f"<asyncio {self._table._title()[1:]}"
