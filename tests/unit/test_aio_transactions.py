"""Transactions for asyncio: both kinds, savepoints, cancellation, closing, what would deadlock."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import cesium
import cesium.aio
from stores_for_asyncio import Gate, opened, threads, until

T = TypeVar("T")


def outside(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that was not started inside of the transaction which this one is in."""
    return asyncio.get_running_loop().create_task(call, context=contextvars.Context())


@pytest.mark.parametrize("optimistic", [False, True])
def test_every_call(tmp_path: Path, optimistic: bool) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            await store.put_many([10, 20, 30], [1, 2, 3])
            async with store.transaction(optimistic=optimistic, durability="sync") as txn:
                assert txn.active and txn.optimistic is optimistic and txn.sequence == 1
                await txn.put(40, 4)
                await txn.delete(10)
                assert await txn.pop(20) == 2 and await txn.setdefault(20, 5) == 5
                assert await txn.compare_and_set(20, 5, 6) and await txn.increment(20) == 7
                assert not await txn.put_if_absent(20, 0)
                await txn.put_many([50, 60, 70], [5, 6, 7])
                await txn.delete_many([50, 51])
                await txn.delete_range(60, 61)
                await txn.update({80: 8})
                await txn.update_many([80, 90], np.add, 1)
                rows = [(20, 7), (30, 3), (40, 4), (70, 7), (80, 9), (90, 1)]
                assert [row async for row in txn.items()] == rows
                assert [row async for row in txn.range(30, 80, reverse=True, limit=2)] == [
                    (70, 7), (40, 4),
                ]  # fmt: skip
                assert await txn.count() == 6 == await txn.range().count()
                assert await txn.get(30) == 3 and not await txn.contains(10)
                assert await txn.first() == rows[0] and await txn.floor(89) == (80, 9)
                assert (await txn.get_many([70, 71]))[1].tolist() == [True, False]
                assert await store.count() == 3 and await store.get(20) == 2
                await store.checkpoint()
                assert "transaction of" in repr(txn)
            assert txn.committed == cesium.Commit(2, "sync", txn.committed.rows)  # type: ignore
            assert [row async for row in store.items()] == rows and not txn.active
            async with store.transaction(optimistic=optimistic) as txn:
                await txn.clear()
                commit = await txn.commit()
                assert commit == txn.committed and commit.sequence == store.sequence == 3
            assert await store.count() == 0
            for call in (lambda: txn.get(1), lambda: txn.put(1, 1), txn.commit, txn.__aenter__):
                with pytest.raises(cesium.Error, match=r"not open|used once"):
                    await call()
            await txn.rollback()
            assert not [name for name in threads() if "transaction" in name]

    asyncio.run(main())


@pytest.mark.parametrize("optimistic", [False, True])
def test_exceptions_and_cancellation_roll_back(tmp_path: Path, optimistic: bool) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            with pytest.raises(ZeroDivisionError):
                async with store.transaction(optimistic) as txn:
                    await txn.put(1, 1)
                    raise ZeroDivisionError
            reached = asyncio.Event()

            async def work() -> None:
                async with store.transaction(optimistic) as txn:
                    await txn.put(2, 2)
                    reached.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(work())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with store.transaction(optimistic) as txn:
                await txn.put(3, 3)
                await txn.rollback()
            await store.put(4, 4)  # nobody has the turn
            assert [row async for row in store.items()] == [(4, 4)]

    asyncio.run(main())


def test_savepoints(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            async with store.transaction() as txn:
                await txn.put(1, 1)
                mark = await txn.savepoint()
                await txn.put(1, 2)
                await mark.rollback()
                with pytest.raises(ZeroDivisionError):
                    async with txn.savepoint():
                        await txn.put(2, 2)
                        raise ZeroDivisionError
                async with txn.savepoint():
                    await txn.put(3, 3)
                with pytest.raises(ZeroDivisionError):
                    async with txn.savepoint():
                        await txn.commit()
                        raise ZeroDivisionError
            assert [row async for row in store.items()] == [(1, 1), (3, 3)]

    asyncio.run(main())


def test_conflicts_and_retry(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            with pytest.raises(cesium.ConflictError):
                async with store.transaction(optimistic=True) as txn:
                    await txn.put(1, await txn.get(1, 0) + 1)
                    await store.put(1, 10)
            tries = []

            async def add() -> int:
                async with store.transaction(optimistic=True) as txn:
                    tries.append(1)
                    await txn.put(1, await txn.get(1) + 1)
                    if len(tries) == 1:
                        await store.put(1, 20)
                return txn.sequence

            assert await cesium.aio.retry(add) == 2 and len(tries) == 2
            await asyncio.gather(*(cesium.aio.retry(add) for _ in range(5)))
            assert await store.get(1) == 26
            with pytest.raises(ValueError, match="attempts is at least 1, not 0"):
                await cesium.aio.retry(add, attempts=0)
            tries.clear()
            with pytest.raises(cesium.ConflictError):
                await cesium.aio.retry(add, attempts=1)

    asyncio.run(main())


def test_tasks_take_turns(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s", workers=2) as store:

            async def move(number: int) -> None:
                for _ in range(5):
                    async with store.transaction() as txn:
                        await txn.put(0, await txn.get(0, 0) + 1)
                        await txn.put(number, await txn.get(0))
                    await store.increment(100)

            await asyncio.gather(*(move(number) for number in range(1, 11)))
            assert await store.get(0) == 50 == await store.get(100)

    asyncio.run(main())


def test_writers_that_wait_take_no_thread_from_it(tmp_path: Path) -> None:
    """More writes wait for the transaction than there are threads; it goes on, and reads do."""

    async def main() -> None:
        async with opened(tmp_path / "s", workers=2) as store:
            async with store.transaction() as txn:
                await txn.put(0, 0)
                writes = [outside(store.put(key, key)) for key in range(1, 9)]
                assert await store.count() == 0 and await txn.count() == 1
                await store.sync()
                assert not any(write.done() for write in writes)
            await asyncio.gather(*writes)
            assert await store.count() == 9

    asyncio.run(main())


def test_a_write_past_the_transaction_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store, opened(tmp_path / "s") as again:
            async with store.transaction() as txn:
                past: list[Callable[[], Awaitable[Any]]] = [
                    lambda: store.put(1, 1), lambda: again.put(1, 1), store.clear,
                    lambda: store.bulk_load([1], [1]), lambda: store.update_many([1], np.add, 1),
                    lambda: asyncio.wait_for(store.put(1, 1), 100.0),
                    lambda: asyncio.gather(store.increment(1)), store.transaction().__aenter__,
                ]  # fmt: skip
                for call in past:
                    with pytest.raises(cesium.Error, match="this task has a transaction open"):
                        await call()
                await txn.put(2, 2)
            await again.put(3, 3)
            async with store.transaction(optimistic=True):
                await store.put(4, 4)
            async with store.transaction():
                async with opened(tmp_path / "other") as other:
                    await other.put(1, 1)
            assert [key async for key in store.keys()] == [2, 3, 4]

    asyncio.run(main())


def test_cancelled_while_it_waits_for_its_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            waiting = store.transaction()

            async def wait() -> None:
                async with waiting:
                    raise AssertionError("it began")

            async with store.transaction() as txn:
                task = outside(wait())
                await until(lambda: sum("transaction" in name for name in threads()) == 2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await txn.put(1, 1)
            await store.put(2, 2)  # the turn was given back when it came
            assert not waiting.active
        assert not threads()

    asyncio.run(main())


def test_closing_rolls_back(tmp_path: Path) -> None:
    async def main() -> None:
        store = await opened(tmp_path / "s")
        begun, closed = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            async with store.transaction() as txn:
                await txn.put(1, 1)
                begun.set()
                await closed.wait()
                with pytest.raises(cesium.ClosedError, match="the transaction is not open"):
                    await txn.get(1)

        async def late() -> None:
            async with store.transaction():
                raise AssertionError("it began")

        worker = asyncio.create_task(work())
        await begun.wait()
        write = asyncio.create_task(store.put(2, 2))
        waiting = asyncio.create_task(late())
        await until(lambda: sum("transaction" in name for name in threads()) == 2)
        await until(lambda: any("write" in name for name in threads()))
        await store.close()
        assert not threads()
        closed.set()
        with pytest.raises(cesium.ClosedError, match="before the transaction ended"):
            await worker
        with pytest.raises(cesium.ClosedError, match="the store is closed"):
            await waiting
        await write
        with pytest.raises(cesium.ClosedError):
            store.transaction()
        async with opened(tmp_path / "s") as store_again:
            assert [row async for row in store_again.items()] == [(2, 2)]

    asyncio.run(main())


def test_a_cancelled_commit_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with opened(tmp_path / "s", value=gate.codec) as store:
            txn = store.transaction()
            await txn.__aenter__()
            await txn.put(1, "one")
            slow = asyncio.create_task(txn.put(2, "wait"))
            await until(gate.reached.is_set)
            commit = asyncio.create_task(txn.commit())
            await until(lambda: txn._last is not None)
            commit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await commit
            gate.opened.set()
            await slow
        async with opened(tmp_path / "s", value=gate.codec) as store:
            assert [row async for row in store.items()] == [(1, "one"), (2, "wait")]
        assert not threads()

    asyncio.run(main())


def test_closing_waits_for_what_a_transaction_is_at(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        store = await opened(tmp_path / "s", value=gate.codec)
        async with store.transaction() as txn:
            slow = asyncio.create_task(txn.put(1, "wait"))
            await until(gate.reached.is_set)
            closing = asyncio.create_task(store.close())
            await until(lambda: store.closed)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not closing.done() and not slow.done()
            gate.opened.set()
            await closing
            assert not threads()
            with pytest.raises(cesium.ClosedError):
                await txn.commit()
            await slow
            await txn.rollback()

    with pytest.raises(cesium.ClosedError, match="before the transaction ended"):
        asyncio.run(main())
