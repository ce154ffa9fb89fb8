"""Tables for asyncio: their calls, in transactions and snapshots."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

import cesium


def test_tables_are_awaited(tmp_path: Path) -> None:
    async def work() -> None:
        async with cesium.aio.open(tmp_path / "s", key="u8", value="f8") as store:
            with pytest.raises(KeyError):
                await store.table("t")
            table = await store.table("t", key="str", value="u8")
            assert (await table.put("a", 1)) == store.sequence
            await asyncio.gather(*(table.put(f"k{number}", number) for number in range(20)))
            await table.bulk_load(["x", "y"], np.array([7, 8]))
            assert await table.increment("x", 3) == 10 and await table.count() == 23
            assert [key async for key, _ in table.range("x", "z")] == ["x", "y"]
            assert store.tables == ("t",) and table.name == "t" and "t" in table.path
            assert "asyncio" in repr(table) and await store.count() == 0
            assert (await store.table("t"))._table is table._table
            changes = [change async for change in table.changes(0)]
            assert len(changes) == 23
            await table.compact()
            async with store.snapshot() as snapshot:
                await table.clear()
                frozen = await snapshot.table("t")
                assert snapshot.tables == ("t",) and await frozen.count() == 23
                with pytest.raises(KeyError):
                    await snapshot.table("none")
            await store.drop_table("t")
            with pytest.raises(cesium.ClosedError, match="dropped"):
                await table.get("a")

    asyncio.run(work())


def test_a_transaction_of_tasks_spans_tables(tmp_path: Path) -> None:
    async def work() -> None:
        async with cesium.aio.open(tmp_path / "s", key="u8", value="i8") as store:
            table = await store.table("t", key="u8", value="i8")
            await store.put(1, 100)

            async def move(amount: int) -> None:
                async def once() -> None:
                    async with store.transaction(optimistic=True) as txn:
                        inside = await txn.table("t")
                        await txn.increment(1, -amount)
                        await inside.increment(1, amount)

                await cesium.aio.retry(once)

            await asyncio.gather(*(move(amount) for amount in range(1, 9)))
            assert (await store.get(1), await table.get(1)) == (64, 36)
            with pytest.raises(ZeroDivisionError):
                async with store.transaction() as txn:
                    inside = await txn.table("t")
                    await inside.update({5: 5})
                    with pytest.raises(cesium.Error, match="transaction open"):
                        await table.put(9, 9)
                    with pytest.raises(cesium.Error, match="transaction open"):
                        await store.drop_table("t")
                    raise ZeroDivisionError
            assert not await table.contains(5)
            with pytest.raises(cesium.ClosedError):
                await inside.get(1)

    asyncio.run(work())


def test_a_task_watches_without_a_thread(tmp_path: Path) -> None:
    async def work() -> None:
        async with cesium.aio.open(tmp_path / "s", key="str", value="u8", workers=1) as store:
            table = await store.table("t", key="u8", value="u8")
            waiting = asyncio.create_task(store.watch("b"))
            others = [asyncio.create_task(table.watch(timeout=60)) for _ in range(5)]
            await store.get("x")  # the one thread for reads is free
            while not waiting.done():
                await store.put("a", 1)
                await store.put("b", 2)
                await asyncio.sleep(0)
            found = await waiting
            assert found is not None and found.operations[0].keys[0] == "b"
            assert not any(other.done() for other in others)
            await table.put(7, 7)
            for other in others:
                change = await other
                assert change is not None and change.operations[0].table == "t"
            assert await store.watch("zz", timeout=0) is None
            assert (await store.watch("a", since=0, timeout=0)) is not None
            with pytest.raises(ValueError, match="timeout"):
                await store.watch(timeout=-1)
            with pytest.raises(ValueError):
                await store.watch(since=10**9)
            cancelled = asyncio.create_task(store.watch("zz"))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            left = asyncio.create_task(store.watch("zz"))
            await store.get("x")
        with pytest.raises(cesium.ClosedError):
            await left
        assert not store._table._engine.journal.detached._pins

    asyncio.run(work())
