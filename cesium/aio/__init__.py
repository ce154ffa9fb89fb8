"""cesium for asyncio: a store whose calls are awaited.

import cesium

async with cesium.aio.open("ticks.cesium", key="u8", value="f8") as store:
    await store.put(42, 1.5)
    async for key, value in store.range(10, 1000):
        ...

docs/asyncio.md says what runs where, and what a cancelled call leaves.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from typing import Any

from cesium.aio.ranges import Range, Rows
from cesium.aio.snapshot import Snapshot
from cesium.aio.store import Store
from cesium.aio.tables import Table
from cesium.aio.transactions import Savepoint, Transaction, retry
from cesium.aio.workers import Opening, Workers
from cesium.casting import at_least
from cesium.options import BLOB_THRESHOLD, At, Options
from cesium.store import Store as BlockingStore
from cesium.store import open as open_blocking

__all__ = [
    "Opening",
    "Range",
    "Rows",
    "Savepoint",
    "Snapshot",
    "Store",
    "Table",
    "Transaction",
    "open",
    "retry",
]

# Commits that share a sync are those under way at once, so this is how far they share: 16 tasks
# that put with durability "sync" made 2.5 times the commits of one task with 4 threads, 4.4 times
# with 8, 4.0 times with 16 (ext4, virtual NVMe, 2 busy processors).
WORKERS = 8


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
    workers: int = WORKERS,
) -> Opening[Store]:
    """Opens a store as cesium.open does: await it, or use it in `async with`, which closes it.

    workers: at most so many reads and as many writes at once, each on a thread of this store's own;
    what is called beyond waits.  Everything else, and the errors: see cesium.open.
    """
    most = at_least("workers", workers, 1)

    def blocking() -> BlockingStore:
        return open_blocking(
            path, key, value, flag, durability, memory_limit,
            blob_threshold=blob_threshold, at=at, options=options,
        )  # fmt: skip

    async def opened() -> Store:
        opener = Workers("cesium-aio-open", 1)
        opening = opener.submit(blocking)
        opener.refuse()
        try:
            store = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unclaimed)
            raise
        opener.end()
        return Store(store, most)

    return Opening(opened)


def _close_unclaimed(opening: Future[BlockingStore]) -> None:
    """What was opened for a task that was cancelled meanwhile is closed, by the thread that did."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
