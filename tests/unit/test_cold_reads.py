"""Reads of pages that are not in memory: how many, which are asked for ahead, which are let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import cesium
from cesium import checkpoint, loader, maintenance
from cesium._advice import advised_pages
from cesium.files import Files
from cesium.opening import acquire
from cesium.options import Options
from cesium.store import Store
from page_cache import PAGE_BYTES, drop, read_bytes, resident, resident_pages, segments_of

ROWS = 400_000
PAGES = ROWS // 252  # full ones

KEYS = np.arange(ROWS, dtype=np.uint64) * 7
VALUES = np.arange(ROWS, dtype=np.float64)


def needed() -> int:
    return advised_pages()[0]


def released() -> int:
    return advised_pages()[1]


def map_all(store: Store) -> None:
    """Has footers and fences read, and nothing else."""
    for reader in store.core.version.segments():
        footer = reader.footer()
        first = footer["fence_first"]
        for number in range(first, first + footer["fence_pages"]):
            reader.page(number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of one segment."""
    with cesium.open(tmp_path / "store", key="u8", value="f8") as store:
        store.bulk_load(KEYS, VALUES)
    return tmp_path / "store"


@pytest.fixture(params=["new", "evicted"])
def cold(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    """The store, open, its pages never touched or no longer in memory."""
    drop(path)
    with cesium.open(path, flag="r") as store:
        map_all(store)
        if request.param == "evicted":
            store.range().arrays()
            drop(path)
            map_all(store)
        yield store


# -- one key


def test_a_cold_get_reads_one_page(cold: Store) -> None:
    chosen = np.random.default_rng(1).choice(ROWS - 1000, 50, replace=False) + 1000
    before = read_bytes()
    assert cold[int(KEYS[500])] == 500
    if read_bytes() == before:
        pytest.skip("this file system does not say what was read")
    costs = []
    for row in chosen.tolist():
        before = read_bytes()
        assert cold[int(KEYS[row])] == row
        costs.append(read_bytes() - before)
    assert set(costs) <= {0, PAGE_BYTES}
    assert costs.count(PAGE_BYTES) > 40  # others shared a page


# -- batches


@pytest.mark.parametrize("batch", [100, 1_000, 20_000])
def test_a_cold_batch_is_read_ahead(cold: Store, path: Path, batch: int) -> None:
    rows = np.random.default_rng(2).integers(0, ROWS, batch)
    before, there = needed(), resident_pages(path)
    values, found = cold.get_many(KEYS[rows])
    assert found.all() and np.array_equal(values, VALUES[rows])
    came = resident_pages(path) - there
    assert came >= len(np.unique(rows // 256)) * 0.8
    # All but those that the first group, or the first key, met.
    assert came * 0.9 - 33 <= needed() - before <= came * 1.1


def test_a_warm_batch_asks_for_little(path: Path) -> None:
    with cesium.open(path, flag="r") as store:
        store.range().arrays()
        rows = np.random.default_rng(3).integers(0, ROWS, 100_000)
        store.get_many(KEYS[rows])
        before = needed()
        values, _ = store.get_many(KEYS[rows])
        assert np.array_equal(values, VALUES[rows])
        # Whoever is kept from the processor looks as if it waited for the drive, and is soon told.
        assert needed() - before < PAGES // 2


def test_a_batch_that_gets_cold_midway(path: Path) -> None:
    """The first keys are in memory, the others are not."""
    drop(path)
    with cesium.open(path, flag="r") as store:
        map_all(store)
        store.range(0, int(KEYS[ROWS // 4])).arrays()
        before = needed()
        rows = np.arange(0, ROWS, 100)
        values, found = store.get_many(KEYS[rows])
        assert found.all() and np.array_equal(values, VALUES[rows])
        assert needed() - before > PAGES // 4


@pytest.mark.parametrize("segment_bytes", [64 << 10, 1 << 20])
@pytest.mark.parametrize("key", ["u8", "str"])
def test_batches_over_many_segments_and_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segment_bytes: int, key: str
) -> None:
    """Two loads that overlap, each in several segments, deleted rows, keys that are not there."""
    for module in (checkpoint, loader, maintenance):
        monkeypatch.setattr(module, "SEGMENT_BYTES", segment_bytes)
    path = tmp_path / "store"
    rows = 60_000

    def encoded(numbers: list[int]) -> list[object]:
        return [f"key {number:012d}" if key == "str" else number for number in numbers]

    with cesium.open(path, key=key, value="i8") as store:
        store.bulk_load(encoded(list(range(0, 3 * rows, 3))), np.arange(rows))
        store.bulk_load(encoded(list(range(0, 3 * rows, 6))), -np.arange(rows // 2))
        store.delete_many(encoded(list(range(0, 3 * rows, 300))))
    drop(path)
    with cesium.open(path, flag="r") as store:
        map_all(store)
        random = np.random.default_rng(4)
        for _ in range(2):
            numbers = random.integers(0, 3 * rows, 5_000).tolist()
            before = needed()
            values, found = store.get_many(encoded(numbers))
            for number, value, there in zip(numbers, values.tolist(), found.tolist(), strict=True):
                assert there == (number % 3 == 0 and number % 300 != 0), number
                if there:
                    assert value == (number // 3 if number % 6 else -(number // 6))
            assert needed() - before > 100
            drop(path)


def test_a_cold_value_of_many_pages_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store"
    values = [bytes([number]) * 300_000 for number in range(20)]
    with cesium.open(path, key="u8", value="bytes", blob_threshold=None) as store:
        store.bulk_load(np.arange(20, dtype=np.uint64), values)
    for evict in (False, True):
        drop(path)
        with cesium.open(path, flag="r") as store:
            map_all(store)
            if evict:
                assert store[7] == values[7]
                drop(path)
            before = needed()
            assert store[7] == values[7]
            assert needed() - before >= 300_000 // PAGE_BYTES


# -- ranges


def batches(view: cesium.Range) -> tuple[np.ndarray, np.ndarray]:
    pieces = list(view.batches(5_000))
    keys, values = zip(*pieces, strict=True)
    return np.concatenate(keys), np.concatenate(values)


def pairs(view: cesium.Range) -> tuple[np.ndarray, np.ndarray]:
    keys, values = zip(*view, strict=True)
    return np.array(keys, np.uint64), np.array(values)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("read", [lambda view: view.arrays(), batches, pairs])
def test_a_cold_scan_is_read_ahead(
    cold: Store, path: Path, read: Callable[[cesium.Range], object], reverse: bool
) -> None:
    before, there = needed(), resident_pages(path)
    keys, values = read(cold.range(reverse=reverse))  # type: ignore[misc]
    order = slice(None, None, -1 if reverse else 1)
    assert np.array_equal(keys, KEYS[order]) and np.array_equal(values, VALUES[order])
    came = resident_pages(path) - there
    assert came >= PAGES
    # All but those before it was clear that the scan goes on, and that it is cold.
    assert came - 20 <= needed() - before <= came


def test_threads_read_ahead_each_for_itself(cold: Store, path: Path) -> None:
    before = needed()
    keys, values = cold.range().arrays(threads=4)
    assert np.array_equal(keys, KEYS) and np.array_equal(values, VALUES)
    assert needed() - before > PAGES * 0.9


@pytest.mark.parametrize("reverse", [False, True])
def test_a_bounded_range_reads_no_more_than_its_pages(
    cold: Store, path: Path, reverse: bool
) -> None:
    there = resident_pages(path)
    lower, upper = ROWS // 2, ROWS // 2 + 10_000
    keys, _ = cold.range(int(KEYS[lower]), int(KEYS[upper]), reverse=reverse).arrays()
    assert np.array_equal(np.sort(keys), KEYS[lower:upper])
    assert resident_pages(path) - there <= 10_000 // 250 + 2


def test_the_first_rows_of_a_range_read_few_pages(cold: Store, path: Path) -> None:
    there = resident_pages(path)
    keys, _ = cold.range(int(KEYS[ROWS // 2]), None, limit=100).arrays()
    assert np.array_equal(keys, KEYS[ROWS // 2 :][:100])
    assert next(iter(cold.range(int(KEYS[ROWS // 4])))) == (int(KEYS[ROWS // 4]), ROWS // 4)
    assert resident_pages(path) - there <= 16


def test_a_warm_scan_asks_for_nothing(path: Path) -> None:
    with cesium.open(path, flag="r") as store:
        store.range().arrays()
        before = needed()
        for read in (lambda view: view.arrays(), batches):
            keys, values = read(store.range())
            assert np.array_equal(keys, KEYS) and np.array_equal(values, VALUES)
        assert needed() - before < PAGES // 10  # none, unless the system took some away


# -- what a long scan leaves behind


class LittleMemory(Files):
    """A directory on a machine that has 2 MiB left."""

    def free_memory(self) -> int:
        return 2 << 20


@pytest.fixture
def large(tmp_path: Path) -> Iterator[tuple[Path, Store]]:
    """A store of 40 MiB, open on that machine, none of it in memory; some segments."""
    path = tmp_path / "store"
    with cesium.open(path, key="u8", value="f8") as store:
        for part in range(2):
            keys = np.arange(1_300_000, dtype=np.uint64) + np.uint64(part * 1_300_000)
            store.bulk_load(keys, keys.astype(np.float64))
    drop(path)
    engine = acquire(path, Options(flag="r"), files=LittleMemory(path))
    with Store(engine, Options(flag="r")) as store:
        map_all(store)
        yield path, store


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("read", [lambda view: view.arrays(), batches])
def test_a_long_scan_lets_go_of_its_own_pages_only(
    large: tuple[Path, Store], read: Callable[[cesium.Range], object], reverse: bool
) -> None:
    path, store = large
    working_set = store.range(500_000, 900_000).arrays()[0]
    assert len(working_set) == 400_000
    before = {name: resident(name) for name in segments_of(path)}
    kept = sum(int(pages.sum()) for pages in before.values())
    let_go = released()
    keys, values = read(store.range(reverse=reverse))  # type: ignore[misc]
    order = slice(None, None, -1 if reverse else 1)
    assert np.array_equal(keys, np.arange(2_600_000)[order])
    assert np.array_equal(values, np.arange(2_600_000)[order])
    pages = sum(len(pages) for pages in before.values())
    assert released() - let_go > (pages - kept) / 4
    after = {name: resident(name) for name in segments_of(path)}
    for name, there in before.items():
        assert (after[name] | ~there).all(), "a page of the working set was let go"
    # At most the 16 MiB after which a scan asks how much memory there is, and what it was ahead.
    if sum(int(there.sum()) for there in after.values()) > kept + (26 << 20) // PAGE_BYTES:
        pytest.skip("this kernel does not let pages go when told so")


def test_a_long_scan_of_a_warm_store_lets_nothing_go(large: tuple[Path, Store]) -> None:
    path, store = large
    for reader in store.core.version.segments():
        reader.read_ahead()
    before, let_go = resident_pages(path), released()
    assert len(store.range().arrays()[0]) == 2_600_000
    assert sum(len(keys) for keys, _ in store.range().batches()) == 2_600_000
    assert released() == let_go
    assert resident_pages(path) == before
