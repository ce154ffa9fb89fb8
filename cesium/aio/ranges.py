"""The ordered query of an asyncio program: rows that threads fetch ahead, in batches."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from cesium.aio.workers import Workers
from cesium.casting import at_least
from cesium.range_columns import chosen
from cesium.ranges import Range as BlockingRange
from cesium.reductions import Description

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

ROWS_MOST = 1024  # that one call of a thread fetches,
ROWS_AT_ONCE = 16  # and so many more only
FETCH_SECONDS = 0.001  # within this time: large values, or cold ones, are not piled up


class Range:
    """Rows of a table between two keys: a question, of which nothing is read yet.

    Made by `range`, `prefix`, `keys`, `values` and `items` of a store or a snapshot.  Each answer
    (`async for`, `count`, `arrays`, `to_pandas`, `sum`, ...) is of one moment: that of its first
    row.
    """

    def __init__(self, workers: Workers, blocking: BlockingRange) -> None:
        self._workers = workers
        self._range = blocking

    def __aiter__(self) -> Rows:
        """The rows as iterating over the blocking range gives them, fetched ahead in batches."""
        return Rows(self._workers, self._range.__iter__, ROWS_MOST)

    def reversed(self) -> Rows:
        """The same rows backwards, for `async for`; a limit is applied first."""
        return Rows(self._workers, self._range.__reversed__, ROWS_MOST)

    def keys(self) -> Range:
        """The same range, yielding keys."""
        return Range(self._workers, self._range.keys())

    def values(self) -> Range:
        """The same range, yielding values."""
        return Range(self._workers, self._range.values())

    def items(self) -> Range:
        """The same range, yielding (key, value) pairs."""
        return Range(self._workers, self._range.items())

    async def count(self) -> int:
        """The exact number of rows."""
        return await self._workers.run(self._range.__len__)

    async def contains(self, item: Any) -> bool:
        """Whether iterating yields the item: see `in` of cesium.Range."""
        return await self._workers.run(self._range.__contains__, item)

    async def arrays(self, threads: int | None = None, columns: Iterable[str] | None = None) -> Any:
        """(keys, values) as arrays, in one call: see cesium.Range.arrays."""
        return await self._workers.run(self._range.arrays, threads, columns)

    def batches(self, rows: int = 65536, columns: Iterable[str] | None = None) -> Rows:
        """The rows of one snapshot in pieces, for `async for`: see cesium.Range.batches."""
        most = at_least("a batch's number of rows", rows, 1)
        names = None if columns is None else chosen(columns)
        return Rows(self._workers, lambda: self._range.batches(most, names), 1)

    # -- frames

    async def to_arrow(self, columns: Iterable[str] | None = None) -> pyarrow.Table:
        """The range as a pyarrow.Table: see cesium.Range.to_arrow."""
        return await self._workers.run(self._range.to_arrow, columns)

    async def to_polars(self, columns: Iterable[str] | None = None) -> polars.DataFrame:
        """The range as a polars.DataFrame: see cesium.Range.to_polars."""
        return await self._workers.run(self._range.to_polars, columns)

    async def to_pandas(
        self, columns: Iterable[str] | None = None, index: bool = True
    ) -> pandas.DataFrame:
        """The range as a pandas.DataFrame: see cesium.Range.to_pandas."""
        return await self._workers.run(self._range.to_pandas, columns, index)

    # -- reductions; `count` is the number of rows

    async def sum(self, column: str | None = None, skipna: bool = True) -> Any:
        """The sum of each value column: see cesium.Range.sum."""
        return await self._workers.run(self._range.sum, column, skipna)

    async def mean(self, column: str | None = None, skipna: bool = True) -> Any:
        """The mean of each value column: see cesium.Range.mean."""
        return await self._workers.run(self._range.mean, column, skipna)

    async def min(self, column: str | None = None, skipna: bool = True) -> Any:
        """The least value of each column: see cesium.Range.min."""
        return await self._workers.run(self._range.min, column, skipna)

    async def max(self, column: str | None = None, skipna: bool = True) -> Any:
        """The greatest value of each column: see cesium.Range.max."""
        return await self._workers.run(self._range.max, column, skipna)

    async def describe(self) -> Description:
        """Count, missing, mean, std and quartiles of each column: see cesium.Range.describe."""
        return await self._workers.run(self._range.describe)

    async def sample(self, n: int, seed: Any = None) -> Any:
        """`n` rows chosen evenly at random: see cesium.Range.sample."""
        return await self._workers.run(self._range.sample, n, seed)

    async def downsample(self, n: int, column: str | None = None, method: str = "minmax") -> Any:
        """At most `n` rows that look like all of them: see cesium.Range.downsample."""
        return await self._workers.run(self._range.downsample, n, column, method)

    def __repr__(self) -> str:
        return f"<asyncio {self._range._title()[1:]}"


class Rows:
    """One iteration, which `async for` goes through; for one task at a time.

    It holds its snapshot, and no thread between two batches, until it ends or is dropped.  A task
    that is cancelled while it waits for rows takes none away: the next one to ask gets them.
    """

    def __init__(self, workers: Workers, start: Callable[[], Iterator[Any]], most: int) -> None:
        self._workers = workers
        self._start = start
        self._most = most
        self._source: Iterator[Any] | None = None  # used by the thread of the fetch alone
        self._ready: list[Any] = []  # rows that were fetched, the next one last
        self._fetch: Future[list[Any]] | None = None
        self._awaited = False

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> Any:
        workers = self._workers
        if not self._ready:
            if self._awaited:
                raise RuntimeError("another task waits for the next row of this iteration")
            if self._fetch is None or self._fetch.cancelled():
                self._fetch = workers.submit(self._next_rows)
            self._awaited = True
            try:
                self._ready = await asyncio.wrap_future(self._fetch)
            finally:
                self._awaited = False
            self._fetch = None  # not when cancelled: the next to ask waits for the same rows
            if not self._ready:
                raise StopAsyncIteration
        if workers.refuses:
            workers.check()  # rows that were fetched are refused as well
        return self._ready.pop()

    def _next_rows(self) -> list[Any]:
        """The next rows, the first one last; none at the end."""
        rows: list[Any] = []
        end = time.monotonic() + FETCH_SECONDS
        try:
            if self._source is None:
                self._source = self._start()
            while len(rows) < self._most:
                asked = min(ROWS_AT_ONCE, self._most - len(rows))
                before = len(rows)
                rows.extend(itertools.islice(self._source, asked))
                if len(rows) < before + asked:
                    self._source = iter(())  # lets go of the snapshot
                    break
                if time.monotonic() >= end:
                    break
        except BaseException as error:
            # The rows before it come first; it is raised by what is asked for next.
            self._source = _failing(error)
            if not rows:
                raise
        rows.reverse()
        return rows


def _failing(error: BaseException) -> Iterator[Any]:
    yield from ()
    raise error
