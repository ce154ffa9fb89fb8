"""Stores for asyncio: every call, ranges, cancellation, closing, and tasks in parallel."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
import cesium.aio
from cesium.aio.ranges import ROWS_AT_ONCE, ROWS_MOST
from cesium.aio.workers import Workers, finished
from cesium.opening import acquire
from failing_files import FailingFiles
from stores_for_asyncio import PATIENCE_SECONDS, Gate, opened, threads, until, until_true

# -- every call


def test_every_write_against_a_dict(tmp_path: Path) -> None:
    async def main() -> None:
        model: dict[int, int] = {}
        async with opened(tmp_path / "s") as store:
            for key in range(20):
                assert await store.put(key, -key) == store.sequence == key + 1
                model[key] = -key
            assert await store.put(20, 0, durability="sync") == store.durable_sequence
            await store.delete(20)
            assert await store.pop(3) == model.pop(3) and await store.pop(3, "gone") == "gone"
            assert await store.setdefault(3, 33) == 33 == await store.setdefault(3, 34)
            assert await store.compare_and_set(4, -4, 44)
            assert not await store.compare_and_set(4, -4, 45)
            assert await store.put_if_absent(5, 0) is False
            assert await store.put_if_absent(50, 1) and await store.increment(50, 4) == 5
            assert await store.increment(51) == 1
            model |= {3: 33, 4: 44, 50: 5, 51: 1}
            commit = await store.put_many([60, 61, 62], [6, 7, 8])
            assert commit == cesium.Commit(store.sequence, "process", 3)
            assert (await store.delete_many([61, 999], "sync")).durability == "sync"
            await store.delete_range(0, 2)
            assert (await store.update({70: 7})).rows == 1
            await store.update([(71, 7)])
            assert (await store.update_many([71, 72], np.add, 1, durability="sync")).rows == 2
            assert await store.pop(72) == 1
            await store.bulk_load(np.array([90, 80], "u8"), np.array([9, 8]), threads=1)
            model |= {60: 6, 62: 8, 70: 7, 71: 8, 80: 8, 90: 9}
            del model[0], model[1]
            assert [pair async for pair in store.items()] == sorted(model.items())
            assert await store.count() == len(model)
            await store.clear()
            assert await store.count() == 0
            with pytest.raises(KeyError, match="the table is empty"):
                await store.first()

    asyncio.run(main())


def test_every_read_against_a_dict(tmp_path: Path) -> None:
    async def reads_of(reads: cesium.aio.Store | cesium.aio.Snapshot) -> None:
        assert await reads.get(10) == 1 and await reads.get(11) is None
        assert await reads.get(11, "none") == "none"
        assert await reads.contains(10) and not await reads.contains(11)
        values, found = await reads.get_many([20, 21], default=-1)
        assert values.tolist() == [2, -1] and found.tolist() == [True, False]
        assert (await reads.contains_many(np.array([1, 30], "u8"))).tolist() == [False, True]
        assert await reads.count() == 3
        assert await reads.first() == (10, 1) and await reads.last() == (30, 3)
        assert await reads.floor(20) == (20, 2) == await reads.ceiling(20)
        assert await reads.lower(20) == (10, 1) and await reads.higher(20) == (30, 3)
        assert await reads.higher(30) is None
        assert [key async for key in reads.keys()] == [10, 20, 30]
        assert [value async for value in reads.values()] == [1, 2, 3]

    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            await store.put_many([10, 20, 30], [1, 2, 3])
            await reads_of(store)
            async with store.snapshot() as snapshot:
                await store.clear()
                await reads_of(snapshot)
                assert snapshot.sequence == 1 and not snapshot.closed
                assert repr(snapshot).startswith("<asyncio snapshot of ")
            assert snapshot.closed
            with pytest.raises(cesium.ClosedError, match="the snapshot is closed"):
                await snapshot.get(10)
            await snapshot.close()
            snapshot = await store.snapshot()
            assert await snapshot.count() == 0 and (await store.stats()).snapshots == 1
            await snapshot.close()
            assert (await store.stats()).snapshots == 0
        async with opened(":memory:", value="bytes") as store:
            await store.put(1, b"one")
            assert await store.view(1) == b"one"

    asyncio.run(main())


def test_following_a_writer(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            await store.put(1, 1)
            assert await store.refresh() == 1
        async with opened(tmp_path / "s", flag="r") as reader:  # while none writes: on its own
            with cesium.open(tmp_path / "s") as writer:
                writer[2] = 2
                assert await reader.get(2) is None
                assert await reader.refresh() == reader.sequence == 2
                assert await reader.get(2) == 2

    asyncio.run(main())


def test_keeping(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            assert store.path == str(tmp_path / "s") and store.options.durability == "process"
            assert not store.read_only and not store.closed
            await store.put_many(np.arange(1000, dtype="u8"), np.arange(1000))
            await store.sync()
            assert store.durable_sequence == 1
            await store.checkpoint()
            await store.compact()
            assert (await store.backup(tmp_path / "backup")).sequence == store.sequence
            assert (await store.verify()).ok
            assert (await store.stats()).segments == 1
            assert (await store.memory()).limit == 1 << 30
            assert repr(store).startswith("<asyncio cesium store ")
        assert store.closed

    asyncio.run(main())


def test_changes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            for key in range(20):
                await store.put(key, -key)
            seen = []
            async for change in store.changes(since=5):
                seen.append(change.sequence)
                await store.put(100, 0)  # later than the first look: not seen
            assert seen == list(range(6, 21))
            changes = store.changes(since=1000)
            with pytest.raises(ValueError, match="1000"):
                await anext(changes)
            rest = store.changes(since=33)
            assert (await anext(rest)).sequence == 34
        with pytest.raises(cesium.ClosedError):
            await anext(rest)

    asyncio.run(main())


def test_opening(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        with pytest.raises(FileNotFoundError):
            await cesium.aio.open(path, flag="w")
        with pytest.raises(ValueError, match="flag is one of"):
            async with cesium.aio.open(path, flag="x"):
                raise AssertionError("it opened")
        store = await cesium.aio.open(
            path, "u8", "i8", "c", "process", "16MiB", blob_threshold=None, workers=1
        )
        assert store.options.memory_limit == "16MiB" and store.options.blob_threshold is None
        await store.put(1, 10)
        await store.close()
        async with await cesium.aio.open(path, flag="r") as store:
            assert store.read_only and await store.get(1) == 10
            with pytest.raises(cesium.ReadOnlyError):
                await store.put(1, 2)
        opening = cesium.aio.open(path)
        async with opening as one, opening as other:
            await one.put(2, 20)
            assert one is not other and await other.get(2) == 20

    asyncio.run(main())
    assert not threads()


def test_wrong_arguments(tmp_path: Path) -> None:
    for workers, error in ((0, ValueError), (-1, ValueError), ("4", TypeError)):
        with pytest.raises(error):
            cesium.aio.open(tmp_path / "s", workers=workers)  # type: ignore[arg-type]

    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            with pytest.raises(cesium.SchemaError, match="text"):
                await store.put("text", 1)
            with pytest.raises(ValueError, match="durability"):
                await store.put(1, 1, durability="forever")
            with pytest.raises(TypeError, match="one default, not 2"):
                await store.pop(1, 2, 3)
            with pytest.raises(KeyError):
                await store.pop(1)
            with pytest.raises(ValueError, match="limit is at least 0, not -1"):
                store.range(limit=-1)
            with pytest.raises(TypeError, match="inclusive is a pair"):
                store.range(1, 2, True)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="at least 1, not 0"):
                store.range().batches(0)
            with pytest.raises(ValueError, match="threads is at least 1"):
                await store.range().arrays(threads=0)
            with pytest.raises(cesium.SchemaError):
                store.prefix("a")
            with pytest.raises(TypeError):
                await store.get()  # type: ignore[call-arg]
            assert await store.count() == 0

    asyncio.run(main())


def test_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, cesium; assert 'cesium.aio' not in sys.modules\n"
        "print(cesium.aio.open.__module__, hasattr(cesium, 'aoi'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cesium.aio", "False"]


# -- ranges

SCHEMAS: list[tuple[Any, Any, dict[Any, Any]]] = [
    ("u8", "f8", {key: key / 2 for key in range(0, 100, 3)}),
    ("str", "json", {f"k{n:03}": {"n": [n, None]} for n in range(50)}),
    (("str", "-i8"), [("a", "f8"), ("b", "i4")], {("ab"[n % 2], n): (n / 2, n) for n in range(50)}),
    ("datetime64[s]", "bytes", {np.datetime64(n, "s"): bytes(n) for n in range(50)}),
]


@pytest.mark.parametrize("key, value, rows", SCHEMAS, ids=["u8", "str", "tuple", "time"])
def test_ranges_give_what_blocking_ones_give(
    tmp_path: Path, key: Any, value: Any, rows: dict[Any, Any]
) -> None:
    async def main() -> None:
        with cesium.open(tmp_path / "s", key, value, durability="process") as blocking:
            blocking.update(rows)
            ordered = list(blocking)
            lo, hi = ordered[5], ordered[-5]
            async with cesium.aio.open(tmp_path / "s", durability="process") as store:
                for arguments in (
                    {}, {"reverse": True}, {"limit": 7}, {"limit": 0}, {"lo": lo},
                    {"lo": lo, "hi": hi, "inclusive": (False, True), "reverse": True, "limit": 30},
                    {"lo": hi, "hi": lo},
                ):  # fmt: skip
                    await same(store.range(**arguments), blocking.range(**arguments))
                if key != "u8" and key != "datetime64[s]":
                    prefix = "k00" if key == "str" else ("a",)
                    await same(store.prefix(prefix), blocking.prefix(prefix))

    async def same(view: cesium.aio.Range, expected: cesium.Range) -> None:
        for one, other in (
            (view, expected), (view.keys(), expected.keys()), (view.values(), expected.values()),
            (view.keys().items(), expected.items()),
        ):  # fmt: skip
            got, wanted = [row async for row in one], list(other)
            assert got == wanted and list(map(type, got)) == list(map(type, wanted))
            assert [row async for row in one.reversed()] == list(reversed(other))
            assert await one.count() == len(other)
            assert repr(await one.arrays()) == repr(other.arrays())
            pieces = [repr(piece) async for piece in one.batches(8)]
            assert pieces == [repr(piece) for piece in other.batches(8)]
            assert repr(one) == f"<asyncio {repr(other).splitlines()[0][1:]}"
        rows = list(expected)
        assert not rows or await view.contains(rows[0])
        assert not await view.contains("nothing")

    asyncio.run(main())


def test_frames_and_reductions_of_ranges(tmp_path: Path) -> None:
    value = [("price", "f8"), ("size", "i4")]
    key = [("at", "datetime64[s]")]
    rows = np.zeros(500, value)
    rows["price"] = np.random.default_rng(1).normal(size=500)
    rows["size"] = np.arange(500)
    times = np.datetime64("2026-01-01", "s") + np.arange(500)

    async def main() -> None:
        async with cesium.aio.open(tmp_path / "s", key, value, durability="process") as store:
            await store.bulk_load(times, rows)
            assert store.key_names == ("at",)
            view = store.range("2026-01-01T00:00:10", "2026-01-01T00:07")
            with cesium.open(tmp_path / "s", durability="process") as blocking:
                expected = blocking.range(times[10], times[420])
                await same(view, expected)
            async with store.snapshot() as snapshot:
                await store.clear()
                assert snapshot.key_names == ("at",)
                assert len(await snapshot.range().to_pandas()) == 500
            assert (await view.to_arrow()).num_rows == 0
            with pytest.raises(cesium.SchemaError, match="no column 'cost'"):
                await view.sum("cost")
            with pytest.raises(cesium.SchemaError, match="columns is a list of names"):
                view.batches(5, columns="price")
        with pytest.raises(cesium.ClosedError):
            await view.describe()

    async def same(view: cesium.aio.Range, expected: cesium.Range) -> None:
        assert (await view.to_pandas()).equals(expected.to_pandas())
        frame = await view.to_pandas(["price"], index=False)
        assert frame.equals(expected.to_pandas(["price"], index=False))
        assert (await view.to_polars(["at", "size"])).equals(expected.to_polars(["at", "size"]))
        assert (await view.to_arrow()).equals(expected.to_arrow())
        assert await view.describe() == expected.describe()
        for name in ("sum", "mean", "min", "max"):
            one, other = getattr(view, name), getattr(expected, name)
            assert await one() == other() and await one("price") == other("price")
        assert await view.mean("size", skipna=False) == expected.mean("size")
        assert repr(await view.sample(9, seed=3)) == repr(expected.sample(9, seed=3))
        assert repr(await view.downsample(9, "price")) == repr(expected.downsample(9, "price"))
        assert repr(await view.arrays(columns=["size"])) == repr(expected.arrays(columns=["size"]))
        pieces = [repr(piece) async for piece in view.batches(100, columns=["size"])]
        assert pieces == [repr(piece) for piece in expected.batches(100, columns=["size"])]

    asyncio.run(main())


def test_a_long_iteration_is_of_one_moment(tmp_path: Path) -> None:
    rows = 5 * ROWS_MOST + 3

    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            await store.put_many(np.arange(rows, dtype="u8"), np.arange(rows))
            seen = []
            async for key, value in store.range():
                if key % 1000 == 0:
                    await store.put_many([key, key + 1, rows + key], [-1, -1, -1])
                seen.append((key, value))
            assert seen == [(number, number) for number in range(rows)]
            batches = store.range(limit=10).keys().batches(4)
            first = await anext(batches)
            await store.clear()
            pieces = [first.tolist(), *[piece.tolist() async for piece in batches]]
            assert pieces == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
            with pytest.raises(StopAsyncIteration):
                await anext(batches)
            assert (await store.memory()).iterators == 0

    asyncio.run(main())


def test_a_row_that_fails_comes_after_those_before_it(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with opened(tmp_path / "s", value=gate.codec) as store:
            values = [f"v{key}" for key in range(3 * ROWS_AT_ONCE)]
            values[ROWS_AT_ONCE + 5] = "fails here"
            await store.put_many(range(len(values)), values)
            rows, seen = aiter(store.range()), []
            with pytest.raises(RuntimeError, match="fails here"):
                async for key, _ in rows:
                    seen.append(key)
            assert seen == list(range(ROWS_AT_ONCE + 5))
            for _ in range(2):
                with pytest.raises(RuntimeError, match="fails here"):
                    await anext(rows)

    asyncio.run(main())


def test_one_task_at_a_time_iterates(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with opened(tmp_path / "s", value=gate.codec) as store:
            await store.put(1, "read wait")
            rows = aiter(store.range())
            first = asyncio.ensure_future(anext(rows))
            await until(gate.reached.is_set)
            with pytest.raises(RuntimeError, match="another task waits"):
                await anext(rows)
            gate.opened.set()
            assert await first == (1, "read wait")

    asyncio.run(main())


# -- errors


def test_errors_pass_through(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with opened(tmp_path / "s", value=gate.codec) as store:
            await store.put_many([1, 2], ["fail 1", "stop"])
            with pytest.raises(RuntimeError, match="fail 1"):
                await store.get(1)
            with pytest.raises(RuntimeError, match="StopIteration came out of"):
                await store.get(2)
            await store.put(3, "well")
            assert await store.get(3) == "well"

    asyncio.run(main())


def test_an_error_of_closing_is_noted_or_raised_once(tmp_path: Path) -> None:
    async def main() -> None:
        for inner in (None, KeyError("inside")):
            path = tmp_path / f"{inner is None}"
            files = FailingFiles(str(path))
            options = cesium.Options("u8", "i8", durability="process")
            store = cesium.aio.Store(
                cesium.Store(acquire(str(path), options, 0, files), options), 2
            )
            with pytest.raises(OSError if inner is None else KeyError) as raised:
                async with store:
                    await store.put(1, 1)
                    files.fail("create", 1)
                    if inner is not None:
                        raise inner
            if inner is not None:
                assert "closing the store failed as well" in raised.value.__notes__[0]
            await store.close()
            assert store.closed and not threads()

    asyncio.run(main())


# -- cancellation


def test_cancelled_before_and_while_it_runs(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with opened(tmp_path / "s", value=gate.codec, workers=1) as store:
            running = asyncio.create_task(store.put(1, "wait"))
            await until(gate.reached.is_set)
            waiting = asyncio.create_task(store.put(2, "never"))
            unstarted = asyncio.create_task(store.put(3, "never"))
            unstarted.cancel()
            await asyncio.sleep(0)
            waiting.cancel()
            running.cancel()
            for task in (running, waiting, unstarted):
                with pytest.raises(asyncio.CancelledError):
                    await task
            gate.opened.set()
            await store.put(4, "next")  # after it, on the one thread for writes
            assert [row async for row in store.items()] == [(1, "wait"), (4, "next")]

    asyncio.run(main())


def test_what_must_be_finished_is_begun_though_cancelled() -> None:
    async def main() -> None:
        gate, made = Gate(), threading.Event()
        workers = Workers("cesium-aio-test", 1)
        first = workers.submit(gate.encode, "wait")
        for call in (workers.run(made.set), finished(workers.submit(made.set))):
            task = asyncio.create_task(call)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not made.is_set()
        gate.opened.set()
        assert await finished(first) == b"wait"
        workers.end()
        assert made.is_set() and not threads()

    asyncio.run(main())


def test_a_cancelled_iteration_lets_go_of_its_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        gate, reached = Gate(), asyncio.Event()
        async with opened(tmp_path / "s", value=gate.codec) as store:
            values = [f"v{key}" for key in range(3 * ROWS_MOST)]
            values[90] = "read wait"
            await store.put_many(range(len(values)), values)

            async def read(stop_at: int | None) -> None:
                async for key, _ in store.range():
                    if key == stop_at:
                        reached.set()
                        await asyncio.Event().wait()

            async def released() -> bool:
                return (await store.memory()).iterators == 0

            in_a_fetch = asyncio.create_task(read(None))
            await until(gate.reached.is_set)
            assert not await released()
            in_a_fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await in_a_fetch
            gate.opened.set()
            await until_true(released)
            in_the_body = asyncio.create_task(read(5))
            await reached.wait()
            assert not await released()
            in_the_body.cancel()
            with pytest.raises(asyncio.CancelledError):
                await in_the_body
            await until_true(released)

    asyncio.run(main())


def test_rows_that_a_cancelled_task_asked_for_are_not_lost(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with opened(tmp_path / "s", value=gate.codec, workers=1) as store:
            values = ["read wait", *(f"v{key}" for key in range(1, 100))]
            await store.put_many(range(100), values)
            rows = aiter(store.range().keys().items())
            for _ in range(3):
                asked = asyncio.ensure_future(anext(rows))
                await until(gate.reached.is_set)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
            other = aiter(store.range().keys())
            queued = asyncio.ensure_future(anext(other))
            await asyncio.sleep(0)
            queued.cancel()  # before a thread was free for it
            with pytest.raises(asyncio.CancelledError):
                await queued
            gate.opened.set()
            assert [row async for row in rows] == list(enumerate(values))
            assert [key async for key in other] == list(range(100))

    asyncio.run(main())


class SlowPath:
    """A path that is known only when the gate is opened."""

    def __init__(self, path: Path, gate: Gate) -> None:
        self.path, self.gate = path, gate

    def __fspath__(self) -> str:
        self.gate._pass("wait")
        return str(self.path)


def test_a_store_that_nobody_waits_for_any_more_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        slow = SlowPath(tmp_path / "s", gate)
        opening = asyncio.ensure_future(opened(slow))  # type: ignore[arg-type]
        await until(gate.reached.is_set)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        gate.opened.set()
        await until(lambda: not threads())
        # As other options are taken, nobody has it open.
        async with opened(tmp_path / "s", durability="sync") as store:
            await store.put(1, 1)

    asyncio.run(main())


def test_the_loop_ends_while_a_thread_is_at_work(tmp_path: Path) -> None:
    gate = Gate()
    stores: list[cesium.aio.Store] = []
    tasks: list[asyncio.Task[int]] = []

    async def first() -> None:
        stores.append(await opened(tmp_path / "s", value=gate.codec))
        tasks.append(asyncio.create_task(stores[0].put(1, "wait")))
        await until(gate.reached.is_set)

    async def second() -> None:
        async with stores[0] as store:
            await store.put(2, "later")
        async with opened(tmp_path / "s", value=gate.codec) as store:
            assert [value async for value in store.values()] == ["wait", "later"]

    asyncio.run(first())  # cancels the put, and does not wait for its thread
    assert tasks[0].cancelled() and not gate.opened.is_set()
    gate.opened.set()
    asyncio.run(second())
    assert not threads()


# -- closing


def test_close_waits_for_what_was_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        store = await opened(tmp_path / "s", value=gate.codec, workers=1)
        await store.put(0, "v")
        rows, unread = aiter(store.items()), store.range()
        snapshot = await store.snapshot()
        await store.put(5, "five")
        assert await anext(rows) == (0, "v")
        writes = [asyncio.create_task(store.put(key, f"wait {key}")) for key in (1, 2)]
        await until(gate.reached.is_set)
        closing = asyncio.create_task(store.close())
        await until(lambda: store.closed)
        cancelled = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(cesium.ClosedError):
            await store.get(0)
        assert not closing.done() and not any(task.done() for task in writes)
        gate.opened.set()
        assert await asyncio.gather(*writes) == [3, 4]
        await closing
        assert not threads()
        await store.close()
        every: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.put(1, "v"), lambda: store.delete(1), lambda: store.pop(1),
            lambda: store.setdefault(1, "v"), lambda: store.compare_and_set(1, "a", "b"),
            lambda: store.put_if_absent(1, "v"), lambda: store.increment(1),
            lambda: store.put_many([1], ["v"]), lambda: store.delete_many([1]),
            lambda: store.delete_range(1, 2), lambda: store.update({1: "v"}), store.clear,
            lambda: store.update_many([1], np.add, 1),
            lambda: store.bulk_load([1], ["v"]), store.snapshot, store.sync, store.checkpoint,
            store.compact, store.verify, store.stats, store.memory, store.refresh,
            lambda: store.get(1),
            lambda: store.contains(1), lambda: store.get_many([1]),
            lambda: store.contains_many([1]), store.count, store.first, store.last,
            lambda: store.floor(1), lambda: store.lower(1), lambda: store.ceiling(1),
            lambda: store.higher(1), lambda: store.view(1), store.__aenter__,
            lambda: anext(rows), unread.count, unread.arrays, lambda: unread.contains(1),
            lambda: anext(unread.batches()), lambda: anext(unread.reversed()),
            lambda: snapshot.get(1), snapshot.__aenter__,
        ]  # fmt: skip
        for call in every:
            with pytest.raises(cesium.ClosedError):
                await call()
        await snapshot.close()
        for make in (store.range, store.keys, store.values, store.items, snapshot.items):
            with pytest.raises(cesium.ClosedError):
                make()
        with pytest.raises(cesium.ClosedError):
            store.prefix(1)
        async with opened(tmp_path / "s", value=gate.codec) as again:
            pairs = {0: "v", 1: "wait 1", 2: "wait 2", 5: "five"}
            assert {key: value async for key, value in again.items()} == pairs

    asyncio.run(main())


def test_rows_fetched_ahead_are_refused_after_close(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:
            await store.put_many(range(10), range(10))
            rows = aiter(store.items())
            assert await anext(rows) == (0, 0)
        with pytest.raises(cesium.ClosedError, match="the store is closed"):
            await anext(rows)

    asyncio.run(main())


def test_dropped_stores_leave_no_threads(tmp_path: Path) -> None:
    async def main() -> None:
        store = await opened(tmp_path / "s")
        await asyncio.gather(*(store.put(key, key) for key in range(10)))
        assert threads()
        del store
        await until(lambda: not threads())
        async with opened(tmp_path / "s", durability="sync") as again:
            assert await again.count() == 10

    asyncio.run(main())


def test_a_forked_child_is_told(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, cesium.aio
options = cesium.Options("u8", "u8", durability="process", background=False)
async def opened():
    store = await cesium.aio.open({str(tmp_path / "s")!r}, options=options)
    await store.put_many([1, 2], [1, 2])
    return store
async def used(store):
    try:
        await store.get(1)
    except cesium.ClosedError as error:
        print(error)
store = asyncio.run(opened())
child = os.fork()
if not child:
    asyncio.run(used(store))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
asyncio.run(store.close())
"""
    done = subprocess.run(
        [sys.executable, "-u", "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert "before the process was forked" in done.stdout


# -- many tasks


def test_tasks_in_parallel(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "s") as store:

            async def work(number: int) -> int:
                for turn in range(20):
                    await store.increment(0)
                    await store.put(1 + number, turn)
                    assert await store.get(1 + number) == turn
                return sum([1 async for _ in store.range(limit=5)])

            counts = await asyncio.gather(*(work(number) for number in range(40)))
            assert set(counts) == {5} and await store.get(0) == 800
            assert await store.count() == 41 and store.sequence == 1600
            assert len(threads()) <= 8

    asyncio.run(main())


def test_reads_do_not_wait_behind_writes(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate()
        async with opened(tmp_path / "s", value=gate.codec, workers=1) as store:
            await store.put(1, "one")
            write = asyncio.create_task(store.put(2, "wait"))
            await until(gate.reached.is_set)
            assert await store.get(1) == "one" and await store.count() == 1
            assert not write.done()
            gate.opened.set()
            await write

    asyncio.run(main())


class HeldFiles(FailingFiles):
    """Whose next sync waits, once `hold` is set."""

    def __init__(self, directory: str) -> None:
        self.hold, self.held, self.released = False, threading.Event(), threading.Event()
        super().__init__(directory)

    def _called(self, kind: str, path: str | None = None, fd: int = -1) -> None:
        super()._called(kind, path, fd)
        if self.hold and kind == "sync":
            self.hold = False
            self.held.set()
            assert self.released.wait(PATIENCE_SECONDS)


def test_tasks_share_a_sync(tmp_path: Path) -> None:
    async def main() -> None:
        files = HeldFiles(str(tmp_path / "s"))
        options = cesium.Options("u8", "i8", background=False)
        blocking = cesium.Store(acquire(str(tmp_path / "s"), options, 0, files), options)
        async with cesium.aio.Store(blocking, 8) as store:
            await store.put(0, 0)
            syncs, files.hold = files.calls["sync"], True
            first = asyncio.create_task(store.put(1, 1))
            await until(files.held.is_set)
            others = [asyncio.create_task(store.put(key, key)) for key in range(2, 9)]
            await until(lambda: store.sequence == 9)  # all are in the journal
            files.released.set()
            assert sorted(await asyncio.gather(first, *others)) == list(range(2, 10))
            assert store.durable_sequence == 9
            assert files.calls["sync"] <= syncs + 2, "one for the first, one for all others"

    asyncio.run(main())


def test_calls_run_in_the_context_of_their_task(tmp_path: Path) -> None:
    name = contextvars.ContextVar("name", default="nobody")
    seen: list[str] = []

    def encode(value: str) -> bytes:
        seen.append(name.get())
        return value.encode()

    async def main() -> None:
        codec = cesium.ValueCodec("seen", encode, lambda data: data.decode())
        async with opened(tmp_path / "s", value=codec) as store:
            name.set("task")
            await store.put(1, "v")

    asyncio.run(main())
    assert set(seen) == {"task"}
