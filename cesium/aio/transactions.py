"""Transactions for asyncio: each with a thread of its own, which makes all of its calls.

A transaction that takes the turn belongs to a thread, and other writes wait for it in theirs.  With
its own it neither waits behind them nor takes a thread away from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cesium._core import Commit
from cesium.aio.revisions import Revisions
from cesium.aio.workers import Opening, Workers, finished
from cesium.errors import ClosedError, ConflictError, Error
from cesium.transactions import Savepoint as BlockingSavepoint
from cesium.transactions import Transaction as BlockingTransaction
from cesium.transactions import TransactionReads, pauses

if TYPE_CHECKING:
    from cesium.aio.store import Store

P = ParamSpec("P")
T = TypeVar("T")
ENDED = "the transaction is not open: it is, inside of its async with statement"

# Those that a task is inside of, and the tasks that it has started there: wait_for and gather start
# some, whose writes past the transaction would make it wait for itself just so.
inside: ContextVar[tuple[Transaction, ...]] = ContextVar("inside", default=())


def check_not_inside(store: Store) -> None:
    """Error when a write to the store would wait for a transaction of the same task."""
    for transaction in inside.get():
        table = transaction._table
        if table.active and not table.optimistic and table.engine is store._table.engine:
            raise Error(
                "this task has a transaction open on the store, for which all other writes wait: "
                "write through the transaction, or end it first"
            )


class TransactionCalls(Revisions):
    """The reads and writes of a table inside of a transaction, awaited."""

    _table: TransactionReads

    # -- writes

    async def _write(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        return await self._readers.run(call, *args, **named)

    async def put(self, key: Any, value: Any) -> None:
        """Stores `value` under `key`."""
        await self._write(self._table.put, key, value)

    async def delete(self, key: Any) -> None:
        """Removes `key`, whether or not it is there."""
        await self._write(self._table.delete, key)

    async def put_many(self, keys: Any, values: Any) -> None:
        """Stores a batch: see cesium.Store.put_many."""
        await self._write(self._table.put_many, keys, values)

    async def delete_many(self, keys: Any) -> None:
        """Removes a batch of keys, whether or not they are there."""
        await self._write(self._table.delete_many, keys)

    async def delete_range(self, lo: Any, hi: Any) -> None:
        """Removes all keys with lo <= key < hi, None being no bound."""
        await self._write(self._table.delete_range, lo, hi)

    async def update(self, pairs: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        """Stores every pair of a mapping, or of an iterable of pairs."""
        await self._write(self._table.update, pairs)

    async def update_many(
        self, keys: Any, function: Callable[..., Any], *arguments: Any, default: Any = None
    ) -> None:
        """Stores function(values, *arguments) for a batch: see cesium.Store.update_many."""
        await self._write(self._table.update_many, keys, function, *arguments, default=default)

    async def clear(self) -> None:
        """Removes everything."""
        await self._write(self._table.clear)

    def __repr__(self) -> str:
        return f"<asyncio {self._table._title()[1:]}"


class TransactionTable(TransactionCalls):
    """A table inside of a transaction: see cesium.Transaction.table."""

    def __init__(self, readers: Workers, table: TransactionReads) -> None:
        self._readers = readers
        self._table = table


class Transaction(TransactionCalls):
    """The reads, writes and ranges of a store, all or nothing: see cesium.Transaction.

    Made by `Store.transaction`, for an `async with` statement: it begins there, is committed at its
    end, and rolled back by an exception, cancellation included.  Tasks may share it.
    """

    _table: BlockingTransaction

    def __init__(self, store: Store, transaction: BlockingTransaction) -> None:
        self._store = store
        self._table = transaction
        self._readers = Workers("cesium-aio-transaction", 1, ENDED)
        self._entered = False
        self._abandoned = False  # rolled back by the closing of the store
        self._last: Future[Any] | None = None  # the call that ends it

    @property
    def active(self) -> bool:
        """Whether it was begun and has not ended."""
        return self._table.active

    @property
    def optimistic(self) -> bool:
        """Whether others may commit meanwhile."""
        return self._table.optimistic

    @property
    def sequence(self) -> int:
        """The last commit that it sees."""
        return self._table.sequence

    @property
    def committed(self) -> Commit | None:
        """What the commit gave, once there is one."""
        return self._table.committed

    # -- its life

    async def __aenter__(self) -> Transaction:
        if self._entered:
            raise Error("a transaction is used once: make another one")
        check_not_inside(self._store)
        self._entered = True
        self._store._began(self)
        try:
            await self._readers.run(self._table.__enter__)
            if self._abandoned:
                raise ClosedError("the store is closed")
        except BaseException:
            self._abandon()
            raise
        inside.set((*inside.get(), self))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            await self.rollback()
        elif self._abandoned:
            raise ClosedError(
                "the store was closed before the transaction ended: it is rolled back"
            )
        elif self._last is None:
            await self.commit()

    async def commit(self) -> Commit:
        """Makes all that was written visible, and ends it: see cesium.Transaction.commit.

        If its task is cancelled here, the commit is made all the same.
        """
        return await self._end(self._table.commit)

    async def rollback(self) -> None:
        """Ends the transaction; nothing of it was written.  May be called again."""
        if self._last is None:
            await self._end(self._table.rollback)

    async def _end(self, call: Callable[[], T]) -> T:
        last = self._last = self._readers.submit(call)
        self._readers.refuse()
        inside.set(tuple(other for other in inside.get() if other is not self))
        try:
            return await finished(last)
        finally:
            self._store._sweep()

    def _abandon(self) -> None:
        """Has it rolled back, by its thread, as soon as that has done what it is at."""
        if self._last is None:
            self._abandoned = True
            self._last = self._readers.submit(self._table.rollback)
            self._readers.refuse()

    def savepoint(self) -> Opening[Savepoint]:
        """A mark to roll back to: await it, or use it in `async with`: exceptions roll back."""
        return Opening(self._savepoint)

    async def _savepoint(self) -> Savepoint:
        return Savepoint(self._readers, await self._readers.run(self._table.savepoint))

    async def table(self, name: str) -> TransactionTable:
        """A table inside of the transaction; KeyError without it: see cesium.Transaction.table."""
        return TransactionTable(self._readers, await self._readers.run(self._table.table, name))


class Savepoint:
    """A mark in a transaction: see cesium.Savepoint."""

    def __init__(self, workers: Workers, savepoint: BlockingSavepoint) -> None:
        self._workers = workers
        self._savepoint = savepoint

    async def rollback(self) -> None:
        """Undoes what was written since: see cesium.Savepoint.rollback."""
        await finished(self._workers.submit(self._savepoint.rollback))

    async def __aenter__(self) -> Savepoint:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not self._workers.refuses:
            await self.rollback()


async def retry(function: Callable[[], Awaitable[T]], attempts: int = 100) -> T:
    """Awaits function(), and again when it ends in ConflictError: see cesium.retry."""
    for pause in pauses(attempts):
        try:
            return await function()
        except ConflictError:
            await asyncio.sleep(pause)
    return await function()
