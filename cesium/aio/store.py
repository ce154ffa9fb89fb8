"""The asyncio face of a store: its calls as coroutines, made by threads of its own.

Two pools, so that no read waits behind writes: commits wait for the drive, and for a transaction
that is open anywhere in the process for as long as it lasts; reads do neither.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from cesium.aio.ranges import Rows
from cesium.aio.snapshot import Snapshot
from cesium.aio.tables import Table, TableCalls
from cesium.aio.transactions import Transaction
from cesium.aio.workers import Opening, Workers, finished
from cesium.backup import BackupReport
from cesium.errors import Error
from cesium.memory import Memory
from cesium.naming import Checkpoint
from cesium.options import Options
from cesium.progress import Progress
from cesium.report import Report
from cesium.stats import Stats
from cesium.store import Store as BlockingStore

P = ParamSpec("P")
T = TypeVar("T")
DONE: Future[None] = Future()
DONE.set_result(None)


class Store(TableCalls):
    """An open store whose calls are awaited.

    Made by `cesium.aio.open`; any number of tasks may use it at once, of any event loop.  A task
    that is cancelled while it awaits a write leaves it done or not begun, never half done; which of
    the two, a read tells.  Use it as an asynchronous context manager, or `close` it.
    """

    _table: BlockingStore

    def __init__(self, store: BlockingStore, workers: int) -> None:
        self._table = store
        self._readers = Workers("cesium-aio-read", workers)
        self._writers = Workers("cesium-aio-write", workers)
        self._transactions: set[Transaction] = set()  # whose threads may still run
        self._closer = Workers("cesium-aio-close", 1)
        self._closing: Future[None] | None = None

    @property
    def path(self) -> str:
        """The store's directory, or ":memory:"."""
        return self._table.path

    @property
    def options(self) -> Options:
        """What it was opened with."""
        return self._table.options

    @property
    def read_only(self) -> bool:
        """Whether it was opened with flag="r"."""
        return self._table.read_only

    @property
    def sequence(self) -> int:
        """The sequence of the last commit."""
        return self._table.sequence

    @property
    def durable_sequence(self) -> int:
        """Every commit up to this one is on stable storage."""
        return self._table.durable_sequence

    def _whole(self) -> Store:
        return self

    # -- tables

    async def table(self, name: str, key: Any = None, value: Any = None) -> Table:
        """The table of that name, made if a key type is given: see cesium.Store.table."""
        return Table(self, await self._writers.run(self._table.table, name, key, value))

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, but for the default one."""
        return tuple(self._table.tables)

    async def drop_table(self, name: str) -> None:
        """Removes a table with all its rows: see cesium.Store.drop_table."""
        await self._write(self._table.drop_table, name)

    # -- transactions

    def transaction(self, optimistic: bool = False, durability: str | None = None) -> Transaction:
        """A transaction, for an `async with` statement: see cesium.Store.transaction."""
        return Transaction(self, self._table.transaction(optimistic, durability))

    def _began(self, transaction: Transaction) -> None:
        self._writers.check()
        self._sweep()
        self._transactions.add(transaction)

    def _sweep(self) -> None:
        """Ends the threads of transactions that have ended."""
        for transaction in list(self._transactions):
            last = transaction._last
            if last is not None and last.done():
                transaction._readers.end()
                self._transactions.discard(transaction)

    # -- keeping

    def changes(self, since: int | None = None) -> Rows:
        """The commits after a sequence, for `async for`: see cesium.Store.changes.

        It looks for them, and raises, when the first one is asked for.
        """
        return Rows(self._readers, lambda: self._table.changes(since), 1)

    def snapshot(self) -> Opening[Snapshot]:
        """A frozen view: `async with store.snapshot() as snapshot`, or await it and close it."""
        return Opening(self._snapshot)

    async def _snapshot(self) -> Snapshot:
        return Snapshot(await self._readers.run(self._table.snapshot), self._readers)

    async def refresh(self) -> int:
        """Moves a read-only handle to the writer's newest commit: see cesium.Store.refresh."""
        return await self._readers.run(self._table.refresh)

    async def sync(self) -> None:
        """Waits until every commit so far is on stable storage: see cesium.Store.sync."""
        await self._readers.run(self._table.sync)

    @overload
    async def checkpoint(self) -> None: ...

    @overload
    async def checkpoint(self, name: str) -> Checkpoint: ...

    async def checkpoint(self, name: str | None = None) -> Checkpoint | None:
        """Writes memtables out as segments: see cesium.Store.checkpoint."""
        if name is None:
            return await self._readers.run(self._table.checkpoint)
        return await self._readers.run(self._table.checkpoint, name)

    async def checkpoints(self) -> list[Checkpoint]:
        """The named checkpoints: see cesium.Store.checkpoints."""
        return await self._readers.run(self._table.checkpoints)

    async def drop_checkpoint(self, name: str) -> None:
        """Forgets a named checkpoint: see cesium.Store.drop_checkpoint."""
        await self._readers.run(self._table.drop_checkpoint, name)

    async def compact(self, progress: Progress = False) -> None:
        """Merges everything into one run: see cesium.Store.compact."""
        await self._readers.run(self._table.compact, progress)

    async def backup(
        self, dest: str | os.PathLike[str], incremental: bool = True, links: bool = True
    ) -> BackupReport:
        """Makes a directory a backup, while tasks go on: see cesium.Store.backup."""
        return await self._readers.run(self._table.backup, dest, incremental, links)

    async def verify(self, progress: Progress = False, rate: int | str | None = None) -> Report:
        """Reads everything and checks it: see cesium.Store.verify."""
        return await self._readers.run(self._table.verify, progress, rate)

    async def stats(self) -> Stats:
        """The store in numbers: see cesium.Store.stats."""
        return await self._readers.run(self._table.stats)

    async def memory(self) -> Memory:
        """Who holds how much memory: see cesium.Store.memory."""
        return await self._readers.run(self._table.memory)

    async def close(self) -> None:
        """Closes it: no more calls are taken, those under way are waited for, their threads end.

        Transactions that are open are rolled back.  May be called again.  A task that is cancelled
        here leaves it closing, in a thread.
        """
        if self._closing is None:
            self._readers.refuse()
            self._writers.refuse()
            for transaction in self._transactions:
                transaction._abandon()  # others wait for it to end
            self._closing = self._closer.submit(self._close)
            self._closer.refuse()
        closing = self._closing
        try:
            await finished(closing)
        finally:
            if closing.done():
                self._closer.end()
                self._closing = DONE  # what it raised, it raised

    def _close(self) -> None:
        for transaction in list(self._transactions):
            transaction._readers.end()
        self._writers.end()
        self._readers.end()
        self._table.close()

    async def __aenter__(self) -> Store:
        self._readers.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except (OSError, Error) as closing:
            if error is None:
                raise
            error.add_note(f"closing the store failed as well: {closing!r}")

    def __repr__(self) -> str:
        return f"<asyncio {self._table._title()[1:]}"
