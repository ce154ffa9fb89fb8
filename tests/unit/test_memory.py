"""One memory limit: how it is divided, what adapts under it, and that it is kept."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import budget, loader, segment_output
from cesium._counters import Counters

KIB, MIB = 1 << 10, 1 << 20
LIMIT = 8 * MIB
PATIENCE_SECONDS = 120.0
TESTS = Path(__file__).parents[1]


def opened(path: Path | None = None, limit: int = LIMIT, **more: Any) -> cesium.Store:
    settings = {"key": "u8", "value": "u8", "durability": "process", "memory_limit": limit, **more}
    return cesium.open(path or ":memory:", options=cesium.Options(**settings))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not happen"


def shuffled(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).permutation(rows).astype("u8")


# --- how it is divided ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "portion"),
    [(MIB, 16 * KIB), (8 * MIB, 128 * KIB), (100_000_000, 1_560_576), (128 * MIB, 2 * MIB),
     (1 << 30, 2 * MIB), (1 << 40, 2 * MIB)],
)  # fmt: skip
def test_a_small_limit_is_divided_into_small_portions(limit: int, portion: int) -> None:
    assert Counters(limit).portion_bytes == portion and portion % 4096 == 0
    assert Counters().portion_bytes == 2 * MIB


def test_the_share_of_the_live_memtable() -> None:
    assert budget.memtable_share(1 << 30, 0) > 64 * MIB, "the default is not cut down"
    assert budget.memtable_share(1 << 30, 600 * MIB) > 64 * MIB
    assert budget.memtable_share(LIMIT, 5 * MIB) == 512 * KIB
    shares = [budget.memtable_share(LIMIT, others) for others in range(0, 2 * LIMIT, 64 * KIB)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == LIMIT // 64, "writing goes on, whatever the others hold"
    assert budget.memtable_share(MIB, 2 * MIB) == 64 * KIB


def test_memtables_take_small_chunks_under_a_small_limit() -> None:
    with opened(limit=MIB) as store:
        for key in range(5000):
            store[key] = key
        memory = store.memory()
        assert memory.memtable - store.stats().memtable_bytes <= 16 * KIB


# --- what adapts ----------------------------------------------------------------------------------


def test_pins_take_from_the_live_memtable_and_give_back(tmp_path: Path) -> None:
    with opened(tmp_path / "s", background=False) as store:
        core = store.core

        def limit() -> int:
            return min(core.memtable_limit_bytes, core.memtable_share_bytes)

        assert limit() == LIMIT // 8
        readers = []
        limits = []
        for turn in range(16):
            store.put_many(shuffled(20_000) + np.uint64(turn * 20_000), shuffled(20_000))
            readers.append(store.range().batches(10))
            next(readers[-1])
            store.checkpoint()
            limits.append(limit())
        assert store.memory().pinned > LIMIT // 2
        assert limits[0] == LIMIT // 8 and limits[-1] < LIMIT // 16
        readers.clear()
        gc.collect()
        store.checkpoint()
        store[1] = 1
        store.checkpoint()
        assert store.memory().pinned == 0 and limit() == LIMIT // 8


def test_a_load_takes_from_the_live_memtable_and_gives_back(tmp_path: Path) -> None:
    with opened(tmp_path / "s", background=False) as store:
        store[1] = 1
        store.checkpoint()
        before = store.core.memtable_share_bytes
        during = []
        keys = store.keys_codec.encode_array(shuffled(150_000))
        values = store.values_codec.encode_array(shuffled(150_000), 150_000)
        loader.load(store._table, keys, values, 1, "process",
            lambda rows: during.append((store.core.memtable_share_bytes, store.memory().total)),
        )  # fmt: skip
        assert during and all(share < before - 150_000 * 16 // 8 for share, _ in during)
        assert all(total <= LIMIT for _, total in during)
        assert store.core.memtable_share_bytes >= before - 10 * KIB  # fences, since then
        assert len(store) == 150_000


def test_a_merge_takes_from_the_live_memtable_and_gives_back(tmp_path: Path) -> None:
    with opened(tmp_path / "s", background=False) as store:
        for turn in range(3):
            store.bulk_load(shuffled(100_000, turn), shuffled(100_000))
        before = store.core.memtable_share_bytes
        during = []
        step = store._engine.step
        store._engine.step = lambda done: during.append(
            (store.core.memtable_share_bytes, store.memory().buffers)
        )
        store.compact()
        store._engine.step = step
        assert during and all(share < before and buffers for share, buffers in during)
        assert store.memory().buffers == 0
        store.checkpoint()
        assert store.core.memtable_share_bytes >= before


def test_the_sum_stays_below_the_limit_while_puts_come_fast(tmp_path: Path) -> None:
    most = 0
    with opened(tmp_path / "s") as store:
        random = np.random.default_rng(1)
        for number, key in enumerate(random.integers(0, 2**63, 300_000).tolist()):
            store[key] = number
            if number % 256 == 0:
                most = max(most, store.memory().total)
        counts = store.stats().counters
        assert counts["flushes"] >= 3
    assert LIMIT // 8 < most <= LIMIT


def test_writing_goes_on_when_readers_hold_more_than_the_limit(tmp_path: Path) -> None:
    with opened(tmp_path / "s", limit=MIB) as store:
        readers = []
        for turn in range(20):
            store.put_many(np.arange(3000, dtype="u8") * 7, np.full(3000, turn, "u8"))
            readers.append(store.range().batches(10))
            next(readers[-1])
        assert store.memory().total > MIB
        for key in range(20_000):
            store[key] = key
        assert store.core.memtable_share_bytes == 64 * KIB
        assert [keys[0] for keys, _ in map(next, readers)] == [70] * 20
        readers.clear()
        gc.collect()
        for key in range(20_000):
            store[key] = key + 1
        wait_until(lambda: store.memory().total <= MIB)
        assert len(store) == 20_000 + len([key for key in range(0, 21_000, 7) if key >= 20_000])


# --- loads, batches and large values --------------------------------------------------------------


def test_many_runs_are_merged_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "run_rows", lambda engine, keys: 100)
    monkeypatch.setattr(loader, "RUNS_MOST", 4)
    keys = np.random.default_rng(2).integers(0, 1500, 3000).astype("u8")
    values = np.arange(3000, dtype="u8")
    with opened(tmp_path / "s", background=False) as store:
        store.bulk_load(keys, values)
        assert dict(store.items()) == dict(zip(keys.tolist(), values.tolist(), strict=True))
        assert store.verify().ok
        assert len(list((tmp_path / "s").glob("segment-*"))) == store.stats().segments


def test_runs_of_a_load_are_merged_by_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is merged once a level, of which there are log4(100 runs), and not once a group."""
    monkeypatch.setattr(loader, "run_rows", lambda engine, keys: 10)
    monkeypatch.setattr(loader, "RUNS_MOST", 4)
    merge_runs, merged = loader.merge_runs, []

    def counted(*arguments: Any) -> Any:
        output = merge_runs(*arguments)
        merged.append(sum(record.rows for record in output.records))
        return output

    monkeypatch.setattr(loader, "merge_runs", counted)
    keys = shuffled(1000)
    with opened(tmp_path / "s", background=False) as store:
        store.bulk_load(keys, keys)
        assert merged[-1] == 1000 and sum(merged) <= 4 * 1000
        assert store.keys().arrays().tolist() == list(range(1000))


@pytest.mark.parametrize("call", range(1, 4))
def test_what_fails_beside_the_budget_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    left = [call]

    def interrupted(engine: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    options = {"key": "u8", "value": "bytes", "durability": "process", "background": False}
    with cesium.open(tmp_path / "s", options=cesium.Options(**options)) as store:
        store[1] = b"1"
        before = sorted(os.listdir(store.path))
        with monkeypatch.context() as patch:
            for module in (segment_output, loader):
                patch.setattr(module, "adapt", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.bulk_load(range(10), [b"x" * 100_000] * 10, threads=1)
        assert left[0] <= 0 and sorted(os.listdir(store.path)) == before
        store.bulk_load(range(10), [b"y"] * 10)
        assert len(store) == 10


@pytest.mark.parametrize("limit", [1 << 64, "99999999999GiB", (1 << 20) - 1, -1])
def test_a_limit_that_is_none_is_refused_before_anything_is_done(
    tmp_path: Path, limit: Any
) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        store[1] = 1
    with pytest.raises(ValueError, match="memory_limit"):
        cesium.open(tmp_path / "s", key="u8", value="u8", flag="n", memory_limit=limit)
    with cesium.open(tmp_path / "s", memory_limit=1 << 60) as store:
        assert store[1] == 1


def test_a_load_that_is_sorted_takes_nothing_to_sort_it() -> None:
    with opened(limit=MIB) as store:
        store.bulk_load(np.arange(500_000, dtype="u8"), np.arange(500_000, dtype="u8"))
        stats = store.stats()
        assert stats.counters["load_bytes"] < 500_000 * 16 * 1.2, "written once"
        assert len(store) == 500_000


def test_a_load_of_many_times_the_limit_is_sorted_in_runs() -> None:
    held = []
    with opened(limit=MIB) as store:
        keys = shuffled(300_000)
        loader.load(store._table, store.keys_codec.encode_array(keys),
            store.values_codec.encode_array(keys + np.uint64(1), len(keys)), 2, "process",
            lambda rows: held.append(store.memory().total),
        )  # fmt: skip
        assert max(held) <= MIB
        assert store.stats().counters["load_bytes"] > 300_000 * 16 * 2
        found, values = store.range().arrays()
        assert (found == np.arange(300_000)).all() and (values == found + 1).all()


def test_what_would_fill_the_memtable_goes_out_as_segments(tmp_path: Path) -> None:
    with opened(tmp_path / "s", limit=MIB, value="bytes", background=False) as store:
        store.put_many(range(100), [b"x" * 100] * 100)
        assert store.stats().counters["loads"] == 0
        store.put_many(range(1000), [b"y" * 100] * 1000)
        assert store.stats().counters["loads"] == 1
        store.put(5, b"z" * 200_000)
        assert store.stats().counters["loads"] == 2
        assert store[5] == b"z" * 200_000 and store[6] == b"y" * 100 and len(store) == 1000
        assert store.setdefault(2000, b"v" * 200_000) == b"v" * 200_000


def test_filters_are_as_large_as_the_limit_allows(tmp_path: Path) -> None:
    with opened(tmp_path / "s", limit=MIB, background=False) as store:
        store.bulk_load([0, 2**40], [1, 1])
        store.bulk_load(np.arange(150_000, dtype="u8"), np.zeros(150_000, "u8"))
        newer, _ = store._table.split_sources()
        (run,) = newer
        assert len(run) == -(-150_000 // (MIB // budget.FILTER_SHARE))
        store.put_many(np.arange(0, 2000, 2), np.ones(1000, "u8"))
        store.checkpoint()
        assert store[149_999] == 0 and store[1998] == 1 and store.get(150_000) is None


# --- iterators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("flushed", [False, True])
def test_iterations_read_few_long_rows_ahead(direction: int, flushed: bool) -> None:
    sizes = [40_000, 0, 1, 300_000, 10, *[20_000] * 60, 400_000, 3]
    with opened(limit=16 * MIB, value="bytes", key="bytes", blob_threshold=100_000) as store:
        for number, size in enumerate(sizes):
            store[b"%04d" % number + b"k" * (size // 10)] = bytes([number]) * size
        if flushed:
            store.checkpoint()
        portion = store._engine.core_engine.counters.portion_bytes
        found, held = [], []
        for key, value in store.range(reverse=direction < 0):
            assert value == bytes([int(key[:4])]) * len(value)
            found.append(len(value))
            held.append(store.memory().iterators)
        assert found == sizes[::direction]
        assert max(held) >= 300_000, "one row is read, whatever it takes"
        assert held[-2] <= 4 * portion, "but not held on to"
        assert sorted(held)[len(held) // 2] <= 3 * portion


def test_a_limit_counts_rows_although_buffers_are_small() -> None:
    with opened(limit=MIB, value="bytes") as store:
        store.put_many(range(50), [bytes(1000)] * 50)
        assert [key for key, _ in store.range(limit=33)] == list(range(33))
        assert list(store.range(limit=33, reverse=True).keys()) == list(range(49, 16, -1))
        assert list(reversed(store)) == list(range(49, -1, -1))


def test_an_iterator_that_the_collector_finds_gives_its_memory_back() -> None:
    with opened() as store:
        store.put_many(range(5000), range(5000))
        ring: list[Any] = [iter(store)]
        ring.append(ring)
        next(ring[0])
        assert store.memory().iterators > 0
        del ring
        gc.collect()
        assert store.memory().iterators == 0


# --- recovery -------------------------------------------------------------------------------------


def test_a_small_limit_replays_in_small_batches(tmp_path: Path) -> None:
    import shutil

    with opened(tmp_path / "s", background=False, limit=64 * MIB) as store:
        for key in shuffled(30_000).tolist():
            store[key] = key + 1
        shutil.copytree(tmp_path / "s", tmp_path / "killed")
    with opened(tmp_path / "killed", limit=MIB) as store:
        keys, values = store.range().arrays()
        assert (keys == np.arange(30_000)).all() and (values == keys + 1).all()


# --- under the kernel's limit ---------------------------------------------------------------------

SMALL = 4 * MIB
MARGIN = 6 * MIB  # rows handed over, Python's objects, and what malloc keeps of what was freed
STACKS = 6 * MIB  # of the threads, beyond what they touch


@pytest.mark.skipif(sys.platform != "linux", reason="what the limit counts is Linux's")
@pytest.mark.parametrize("workload", ["bulk_load", "put_many", "put"])
def test_twenty_times_the_limit(tmp_path: Path, workload: str) -> None:
    command = [sys.executable, str(TESTS / "limited_memory.py"), str(tmp_path), workload]
    package = str(Path(cesium.__file__).parents[1])
    child = subprocess.run(
        [*command, str(SMALL), str(MARGIN + STACKS), str(20 * SMALL)],
        env=os.environ | {"PYTHONPATH": package, "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) <= SMALL + MARGIN
