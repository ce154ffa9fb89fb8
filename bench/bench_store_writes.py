"""What cesium promises of single puts and of batches; the rest is in bench_store."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium

STORED_ROWS = 1_000_000  # in the store that single puts and batches go into
BATCH_ROWS = 10_000

Alternate = Callable[..., list[float]]


@pytest.fixture
def stored(fresh_dir: Path, data: Any, table: Any) -> Iterator[cesium.Store]:
    """A loaded store of 1 M rows to write into."""
    with cesium.open(fresh_dir / "store", key="u8", value="f8", durability="process") as opened:
        opened.bulk_load(data.shuffled_keys[:STORED_ROWS], data.shuffled_values[:STORED_ROWS])
        yield opened


def new_keys(rows: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 2**64, rows, np.uint64)


def time_puts(alternate: Alternate, store: cesium.Store, seed: int) -> float:
    """Median nanoseconds of one put of a new key, in random order."""
    batches = [[int(key) for key in new_keys(50_000, seed + number)] for number in range(6)]
    rounds = iter(batches)

    def puts() -> None:
        put = store.put
        for key in next(rounds):
            put(key, 1.5)

    (seconds,) = alternate(puts)
    return seconds / len(batches[0]) * 1e9


def test_put(alternate: Alternate, table: Any, stored: cesium.Store) -> None:
    nanoseconds = time_puts(alternate, stored, 100)
    table.add(
        "put, single, shuffled, `process`, into 1 M rows", f"{nanoseconds:.0f} ns",
        f"{1e3 / nanoseconds:.1f} M puts/s", "", "<= 1000 ns", nanoseconds <= 1000,
    )  # fmt: skip


def test_put_into_a_full_memtable(alternate: Alternate, table: Any, stored: cesium.Store) -> None:
    stored.put_many(new_keys(STORED_ROWS, 99), np.ones(STORED_ROWS))
    nanoseconds = time_puts(alternate, stored, 200)
    table.add(
        "the same with 1 M more rows in the memtable", f"{nanoseconds:.0f} ns",
        f"{1e3 / nanoseconds:.1f} M puts/s",
    )  # fmt: skip


def test_put_many(alternate: Alternate, table: Any, stored: cesium.Store) -> None:
    values = np.ones(BATCH_ROWS)
    rounds = iter([new_keys(20 * BATCH_ROWS, 300 + number) for number in range(6)])

    def batches() -> None:
        keys = next(rounds)
        for at in range(0, len(keys), BATCH_ROWS):
            stored.put_many(keys[at : at + BATCH_ROWS], values)

    (seconds,) = alternate(batches)
    rows = 20 * BATCH_ROWS
    table.add(
        "put_many of 10,000, `process`", f"{seconds / rows * BATCH_ROWS * 1e3:.2f} ms a batch",
        table.rate(rows, seconds), "", ">= 3 M rows/s", rows / seconds >= 3e6,
    )  # fmt: skip


def own_written() -> int:
    """Bytes that this process has caused to be written, as the kernel counts them."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def drive_counter(path: Path) -> Callable[[], int]:
    """Bytes written to the drive of the path by anybody; without a drive, by this process."""
    device = path.stat().st_dev
    counter = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not counter.exists():
        return own_written
    return lambda: int(counter.read_text().split()[6]) * 512


def test_synced_put(benchmark: Any, table: Any, fresh_dir: Path) -> None:
    """Others write to the drive meanwhile, so the commonest count and this process's own decide."""
    written = drive_counter(fresh_dir)
    keys = iter([int(key) for key in new_keys(220, 400)])
    drive, own, times = [], [], []
    with cesium.open(fresh_dir / "store", key="u8", value="f8", durability="sync") as store:
        for _ in range(20):
            store.put(next(keys), 1.5)
        os.sync()

        def put() -> None:
            key, own_before, before = next(keys), own_written(), written()
            start = time.perf_counter()
            store.put(key, 1.5)
            times.append(time.perf_counter() - start)
            drive.append(written() - before)
            own.append(own_written() - own_before)

        benchmark.pedantic(put, rounds=200)
    commonest, mean = statistics.mode(drive), statistics.mean(own)
    table.add(
        "bytes written by one put with `sync`",
        f"drive: mostly {commonest / 1024:.1f} KiB, median {statistics.median(drive) / 1024:.1f}, "
        f"mean {statistics.mean(drive) / 1024:.1f}; process: mean {mean / 1024:.1f}",
        f"{statistics.median(times) * 1e6:.0f} us a put",
        "drive: everybody's writes",
        "<= 8 KiB",
        commonest <= 8192 and mean <= 8192,
    )
