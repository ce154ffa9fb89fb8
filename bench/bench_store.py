"""The promises of cesium, each measured beside its reference in the same run.

`make bench`, or `make bench ROWS=1000000` for a few minutes less; bench/README.md says how to read
the table that ends the run.  Each test is one or two of its rows; writes are in bench_store_writes.
"""

from __future__ import annotations

import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium

PROBES = 1_000_000
SINGLE_PROBES = 200_000
ITERATED_ROWS_MOST = 4_000_000
MEBIBYTE = 1 << 20

Alternate = Callable[..., list[float]]


def load(path: Path, keys: Any, values: Any, threads: int) -> float:
    """Seconds from arrays to stable storage, in a new store opened before and closed after."""
    with cesium.open(path, key="u8", value="f8") as store:
        start = time.perf_counter()
        store.bulk_load(keys, values, threads=threads)
        return time.perf_counter() - start


def save(path: Path, keys: Any, values: Any) -> None:
    """What a numpy user would do: two files, synced."""
    path.mkdir()
    for name, array in (("keys", keys), ("values", values)):
        with open(path / f"{name}.npy", "wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())


@pytest.fixture(scope="session")
def store_path(bench_dir: Path, data: Any, table: Any) -> Path:
    """A cleanly closed store of all rows."""
    path: Path = bench_dir / "store"
    load(path, data.keys, data.values, 1)
    return path


@pytest.fixture
def store(store_path: Path) -> Iterator[cesium.Store]:
    """The store of all rows, all of it in the page cache and its pages checked."""
    with cesium.open(store_path, flag="r") as opened:
        opened.range().arrays()
        yield opened


@pytest.fixture(scope="session")
def mapped(bench_dir: Path, data: Any, table: Any) -> tuple[Any, Any]:
    """The sorted columns as numpy would keep them: mapped files, in the page cache."""
    save(bench_dir / "arrays", data.keys, data.values)
    found = [np.load(bench_dir / "arrays" / f"{name}.npy", "r") for name in ("keys", "values")]
    for array in found:
        array.sum()
    return found[0], found[1]


@pytest.fixture(scope="session")
def probes(data: Any) -> Any:
    """Keys that are there, in random order."""
    chosen = np.random.default_rng(3).integers(0, data.rows, min(PROBES, data.rows))
    return data.keys[chosen]


@pytest.fixture(scope="session")
def misses() -> Any:
    """Keys that are not there, but for a chance of one in a trillion each."""
    return np.random.default_rng(5).integers(0, 2**64, PROBES, np.uint64)


# -- loads


@pytest.mark.parametrize("threads", [1, 2])
def test_load_sorted(alternate: Alternate, table: Any, data: Any, fresh: Any, threads: int) -> None:
    measured, reference = alternate(
        lambda: load(fresh.path(), data.keys, data.values, threads),
        lambda: save(fresh.path(), data.keys, data.values),
        prepare=fresh.clear,
    )
    ratio = measured / reference
    table.add(
        f"bulk_load, sorted, to durable{', two threads' if threads == 2 else ''}",
        f"{measured * 1e3:.0f} ms, {table.rate(data.rows, measured)}",
        f"ratio {ratio:.2f}",
        f"np.save of both arrays + fsync: {reference * 1e3:.0f} ms",
        "ratio <= 0.70" if threads == 1 else "",
        ratio <= 0.7 if threads == 1 else None,
    )


def test_load_shuffled(alternate: Alternate, table: Any, data: Any, fresh: Any) -> None:

    def shuffled(threads: int) -> Callable[[], float]:
        keys, values = data.shuffled_keys, data.shuffled_values
        return lambda: load(fresh.path(), keys, values, threads)

    two, one, sort, ascending, _ = alternate(
        shuffled(2),
        shuffled(1),
        lambda: np.argsort(data.shuffled_keys, kind="stable"),
        lambda: load(fresh.path(), data.keys, data.values, 1),
        fresh.clear,
        rounds=3,
    )
    ratio = one / (sort + ascending)
    table.add(
        "bulk_load, shuffled, to durable",
        f"{one * 1e3:.0f} ms, {table.rate(data.rows, one)}",
        f"ratio {ratio:.2f}",
        f"np.argsort {sort * 1e3:.0f} ms + sorted load {ascending * 1e3:.0f} ms",
        "ratio <= 0.70",
        ratio <= 0.7,
    )
    table.add(
        "bulk_load, shuffled, two threads",
        f"{two * 1e3:.0f} ms, {table.rate(data.rows, two)}",
        f"ratio {two / one:.2f}",
        f"one thread: {one * 1e3:.0f} ms",
        "ratio <= 0.70",
        two / one <= 0.7,
    )


def test_first_scan(alternate: Alternate, table: Any, data: Any, fresh: Any) -> None:
    """Right after a load, its pages unmapped and unchecked as yet, beside the same scan again."""
    opened: list[cesium.Store] = []

    def reload() -> None:
        if opened:
            opened.pop().close()
        fresh.clear()
        opened.append(cesium.open(fresh.path(), key="u8", value="f8"))
        opened[0].bulk_load(data.keys, data.values, threads=1)

    # References are timed before the measured work, so the second scan is the measured one here.
    second, _, first = alternate(
        lambda: opened[0].range().arrays(), reload, lambda: opened[0].range().arrays()
    )
    opened.pop().close()
    table.add(
        "first full scan after a load",
        f"{first * 1e3:.0f} ms",
        f"ratio {first / second:.2f}",
        f"second scan: {second * 1e3:.0f} ms",
        "ratio <= 2.00",
        first / second <= 2,
    )


def test_loading_memory(benchmark: Any, table: Any, data: Any, fresh_dir: Path) -> None:
    """In a process of its own, with a memory limit that makes it sort in several runs."""
    limit = max(16 * MEBIBYTE, data.raw_bytes // MEBIBYTE * MEBIBYTE)
    program = Path(__file__).with_name("loading_memory.py")
    command = [sys.executable, program, fresh_dir / "store", str(data.rows), str(limit)]
    run = benchmark.pedantic(
        subprocess.run, (command,), {"check": True, "capture_output": True}, rounds=1
    )
    taken = int(run.stdout)
    table.add(
        f"anonymous memory of a load, memory_limit {limit // MEBIBYTE} MiB",
        f"inputs + {taken / MEBIBYTE:.0f} MiB",
        f"limit {(taken - limit) / 1e6:+.0f} MB",
        "",
        "inputs + limit + 64 MB",
        taken <= limit + 64e6,
    )


# -- reads of one or many keys


def test_get_many(
    alternate: Alternate, table: Any, store: Any, mapped: tuple[Any, Any], probes: Any
) -> None:
    keys, values = mapped
    found, mask = store.get_many(probes)
    assert mask.all() and np.array_equal(found, values[np.searchsorted(keys, probes)])
    measured, reference, two = alternate(
        lambda: store.get_many(probes),
        lambda: values[np.searchsorted(keys, probes)],
        lambda: store.get_many(probes, threads=2),
    )
    nanoseconds, times = measured / len(probes) * 1e9, reference / measured
    table.add(
        "get_many, random hits",
        f"{nanoseconds:.0f} ns a key",
        f"{times:.1f} times as fast",
        f"np.searchsorted + gather, mapped: {reference / len(probes) * 1e9:.0f} ns",
        "<= 120 ns and >= 10 times",
        nanoseconds <= 120 and times >= 10,
    )
    table.add("get_many, two threads", f"{two / len(probes) * 1e9:.0f} ns a key", "")


def test_absent_keys(alternate: Alternate, table: Any, store: Any, misses: Any) -> None:
    assert not store.contains_many(misses).any()
    get, contains = alternate(lambda: store.get_many(misses), lambda: store.contains_many(misses))
    for work, seconds in (("get_many", get), ("contains_many", contains)):
        table.add(f"{work}, random misses", f"{seconds / len(misses) * 1e9:.0f} ns a key", "")


def test_get_single(
    alternate: Alternate, table: Any, store: Any, bench_dir: Path, data: Any, probes: Any
) -> None:
    lmdb = pytest.importorskip("lmdb", reason="py-lmdb is not installed: see the extra 'peers'")
    numbers = [int(key) for key in probes[:SINGLE_PROBES]]
    encoded = [struct.pack(">Q", key) for key in numbers]
    environment = lmdb.open(
        str(bench_dir / "lmdb"), map_size=data.rows * 128 + (64 << 20), readahead=False, sync=False
    )
    with environment.begin(write=True) as transaction:
        key_bytes, value_bytes = data.keys.astype(">u8").tobytes(), data.values.tobytes()
        places = (slice(at, at + 8) for at in range(0, len(key_bytes), 8))
        pairs = ((key_bytes[place], value_bytes[place]) for place in places)
        transaction.cursor().putmulti(pairs, append=True)
    environment.sync(True)

    def gets(get: Callable[[Any], Any], keys: list[Any]) -> None:
        for key in keys:
            get(key)

    with environment.begin() as transaction:
        assert struct.unpack("<d", transaction.get(encoded[0]))[0] == store.get(numbers[0])
        measured, reference = alternate(
            lambda: gets(store.get, numbers), lambda: gets(transaction.get, encoded)
        )
    environment.close()
    shutil.rmtree(bench_dir / "lmdb")
    table.add(
        "get, single, random hit",
        f"{measured / len(numbers) * 1e9:.0f} ns",
        f"{reference / measured:.2f} times as fast",
        f"py-lmdb get, one transaction: {reference / len(numbers) * 1e9:.0f} ns",
        ">= 2 times",
        reference / measured >= 2,
    )


def drop_from_cache(directory: Path) -> None:
    """Asks the kernel to forget the files' pages, which are on the drive already."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        finally:
            os.close(descriptor)


def test_cold_get(benchmark: Any, table: Any, store_path: Path, data: Any, probes: Any) -> None:
    """Single gets from the drive beside single reads of 4 KiB of the same files."""
    drop_from_cache(store_path)
    path = max(store_path.iterdir(), key=lambda file: file.stat().st_size)
    pages = path.stat().st_size // 4096
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    random = np.random.default_rng(9)
    reads, gets = [], []
    with cesium.open(store_path, flag="r") as store:
        for number in random.choice(pages, min(1000, pages // 4), replace=False):
            start = time.perf_counter()
            os.pread(descriptor, 4096, int(number) * 4096)
            reads.append(time.perf_counter() - start)
        os.close(descriptor)
        drop_from_cache(store_path)
        keys = iter([int(key) for key in probes[:1200]])
        for _ in range(200):  # fences and filters
            store.get(next(keys))

        def get() -> None:
            key = next(keys)
            start = time.perf_counter()
            store.get(key)
            gets.append(time.perf_counter() - start)

        benchmark.pedantic(get, rounds=1000)
    table.add(
        "get, single, cold page",
        f"{statistics.median(gets) * 1e6:.0f} us",
        f"ratio {statistics.median(gets) / statistics.median(reads):.2f}",
        f"one pread of 4 KiB: {statistics.median(reads) * 1e6:.0f} us",
    )


# -- ranges


def test_arrays(alternate: Alternate, table: Any, store: Any, data: Any) -> None:
    width = data.rows // 100
    starts = np.random.default_rng(4).integers(0, data.rows - width, 20)
    bounds = [(int(data.keys[at]), int(data.keys[at + width])) for at in starts]
    keys, values = store.range(*bounds[0]).arrays()
    assert len(keys) == width and np.array_equal(keys, data.keys[starts[0] :][:width])
    assert np.array_equal(values, data.values[starts[0] :][:width])

    def ranges() -> None:
        for lo, hi in bounds:
            store.range(lo, hi).arrays()

    everything, part, two, copy = alternate(
        lambda: store.range().arrays(),
        ranges,
        lambda: store.range().arrays(threads=2),
        lambda: (data.keys.copy(), data.values.copy()),
    )
    for work, rows, seconds in (
        ("range(...).arrays(), 1 % of the rows", width * len(bounds), part),
        ("full scan, arrays()", data.rows, everything),
    ):
        table.add(
            work,
            f"{seconds / rows * data.rows * 1e3:.0f} ms for all rows",
            table.rate(rows, seconds),
            f"copies of two arrays in memory: {table.rate(data.rows, copy)}",
            ">= 150 M rows/s",
            rows / seconds >= 150e6,
        )
    table.add("full scan, two threads", f"{two * 1e3:.0f} ms", table.rate(data.rows, two))


def test_iteration(alternate: Alternate, table: Any, store: Any, data: Any) -> None:
    rows = min(ITERATED_ROWS_MOST, data.rows - 1)
    hi = int(data.keys[rows])

    def iterate() -> None:
        for _key, _value in store.range(None, hi):
            pass

    (seconds,) = alternate(iterate)
    table.add(
        "for key, value in range", f"{seconds / rows * 1e9:.0f} ns a row",
        table.rate(rows, seconds), "", ">= 10 M rows/s", rows / seconds >= 10e6,
    )  # fmt: skip


# -- the store as a whole


def test_open(benchmark: Any, table: Any, store_path: Path) -> None:
    opened: list[cesium.Store] = []
    times = []

    def close() -> None:
        while opened:
            opened.pop().close()

    def reopen() -> None:
        start = time.perf_counter()
        store = cesium.open(store_path)
        times.append(time.perf_counter() - start)
        opened.append(store)

    benchmark.pedantic(reopen, setup=close, rounds=20, warmup_rounds=1)
    close()
    milliseconds = statistics.median(times[1:]) * 1e3
    table.add(
        "open, cleanly closed", f"{milliseconds:.2f} ms", "", "", "<= 1 ms", milliseconds <= 1
    )


def test_size(benchmark: Any, table: Any, store_path: Path, data: Any) -> None:
    size = benchmark.pedantic(lambda: sum(file.stat().st_size for file in store_path.iterdir()))
    ratio = size / data.raw_bytes
    table.add(
        "bytes on disk over raw bytes", f"{size / 1e6:.1f} MB", f"ratio {ratio:.3f}",
        f"two arrays: {data.raw_bytes / 1e6:.1f} MB", "<= 1.080", ratio <= 1.08,
    )  # fmt: skip
