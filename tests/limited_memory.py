"""Run as a program by test_memory: loads and reads many times the memory limit, under the kernel's.

limited_memory.py DIRECTORY WORKLOAD LIMIT MARGIN BYTES prints the most anonymous memory that the
workload took beyond what the interpreter had before, in bytes.  The kernel refuses private memory
(RLIMIT_DATA: what is mapped writable and is not shared, touched or not; mapped files are apart)
beyond what was there, LIMIT and MARGIN, so that whoever takes more fails.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from pathlib import Path

import numpy as np

import cesium

STACK_BYTES = 256 << 10  # of a thread: mapped as a whole, so that the kernel counts it
BATCH_BYTES = 64 << 10  # of rows: what is handed over is the caller's, and beyond the limit
ROW_BYTES = 16
LONG_ROW_BYTES = 1024
ODD = np.uint64(0x9E3779B97F4A7C15)  # times a number: a key, no two of them equal
SECONDS_BETWEEN_SAMPLES = 0.002


def status_bytes(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not say {name} in /proc/self/status")


def open_store(directory: Path, limit: int, value: str) -> cesium.Store:
    return cesium.open(
        directory / "store", key="u8", value=value, durability="process", memory_limit=limit
    )


def inputs(directory: Path, size: int) -> tuple[np.memmap, np.memmap]:
    """Shuffled keys and their values, in files, so that they are no anonymous memory."""
    rows = size // ROW_BYTES
    keys = np.memmap(directory / "keys", np.uint64, "w+", shape=(rows,))
    values = np.memmap(directory / "values", np.float64, "w+", shape=(rows,))
    for first in range(0, rows, BATCH_BYTES):
        part = np.arange(first, min(first + BATCH_BYTES, rows), dtype=np.uint64)
        keys[first : first + BATCH_BYTES] = part * ODD
        values[first : first + BATCH_BYTES] = part
    return keys, values


def read(store: cesium.Store, rows: int, row_bytes: int) -> None:
    """Reads all by batches, then a part by iterating, then some by key."""
    batch = BATCH_BYTES // row_bytes
    assert sum(len(keys) for keys, _ in store.range().batches(batch)) == rows
    part = min(rows, 100_000)
    assert sum(1 for _ in store.range(limit=part)) == part
    for first in range(0, rows, rows // 50):
        numbers = np.arange(first, min(first + batch, rows), dtype=np.uint64)
        assert store.get_many(numbers * ODD)[1].all()


def bulk_load(directory: Path, limit: int, size: int) -> None:
    keys, values = inputs(directory, size)
    with open_store(directory, limit, "f8") as store:
        store.bulk_load(keys, values)
        read(store, len(keys), ROW_BYTES)


def put_many(directory: Path, limit: int, size: int) -> None:
    keys, values = inputs(directory, size)
    with open_store(directory, limit, "f8") as store:
        for first in range(0, len(keys), BATCH_BYTES // ROW_BYTES):
            part = slice(first, first + BATCH_BYTES // ROW_BYTES)
            store.put_many(keys[part], values[part])
        read(store, len(keys), ROW_BYTES)


def put(directory: Path, limit: int, size: int) -> None:
    rows = size // LONG_ROW_BYTES
    with open_store(directory, limit, "bytes") as store:
        for row in range(rows):
            key = row * int(ODD) % 2**64
            store.put(key, key.to_bytes(8, "little") * (LONG_ROW_BYTES // 8 - 1))
        read(store, rows, LONG_ROW_BYTES)


def measure(directory: Path, workload: str, limit: int, margin: int, size: int) -> int:
    threading.stack_size(STACK_BYTES)
    before, peak, done = status_bytes("RssAnon"), 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(SECONDS_BETWEEN_SAMPLES):
            peak = max(peak, status_bytes("RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    most = status_bytes("VmData") + limit + margin
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        {"bulk_load": bulk_load, "put_many": put_many, "put": put}[workload](directory, limit, size)
    finally:
        done.set()
        sampler.join()
    return peak - before


if __name__ == "__main__":
    if resource.getrlimit(resource.RLIMIT_STACK)[0] != STACK_BYTES * 4:
        # Threads of compiled code have stacks of this size from the start of the program on.
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES * 4, hard))
        os.execv(sys.executable, [sys.executable, *sys.argv])
    print(measure(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])))
