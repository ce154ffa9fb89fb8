"""The drive's own figures, past the page cache: what the workloads are compared with.

`Reader(paths)` reads aligned blocks of files with O_DIRECT, so many at once; `measure(directory)`
makes a file of its own and measures all of it: sequential reads and writes, random reads by depth,
and syncs.  A depth of 1 is pread, a greater one io_uring; without that, as many threads of pread.
Neither holds the GIL between two reads (cesium/_ring.pyx), so that no interpreter bounds a rate: on
the development machine, busy with other work, one core reads a file that is in the page cache half
a million times a second.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cesium import _ring

PAGE_BYTES = 4096
BLOCK_BYTES = 1 << 20  # of sequential reads
WRITE_BYTES = 4 << 20  # of sequential writes
SEQUENTIAL_DEPTH = 4
DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RECORD_BYTES = 128  # of a commit that is synced


def open_direct(path: Path, flags: int) -> int:
    """A descriptor past the page cache; through it where the file system refuses that."""
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError:
        return os.open(path, flags, 0o600)


class Reader:
    """Reads blocks of some files past the page cache, and says how fast."""

    def __init__(self, paths: Sequence[Path], seed: int = 17) -> None:
        self.files = [open_direct(path, os.O_RDONLY) for path in paths]
        self.sizes = [path.stat().st_size // PAGE_BYTES * PAGE_BYTES for path in paths]
        self.random = np.random.default_rng(seed)
        try:
            self._read(np.zeros(1, np.int64), np.zeros(1, np.int64), PAGE_BYTES, 2)
            self.method = "io_uring"
        except OSError:  # a kernel, or a container, without it
            self.method = "threads"

    def close(self) -> None:
        for fd in self.files:
            os.close(fd)

    def random_reads(self, reads: int, depth: int) -> tuple[float, Any]:
        """(seconds, each read's nanoseconds) of 4 KiB reads at random places, no place twice."""
        pages = np.cumsum([0] + [size // PAGE_BYTES for size in self.sizes])
        chosen = self.random.choice(int(pages[-1]), min(reads, int(pages[-1])), replace=False)
        files = np.searchsorted(pages, chosen, side="right") - 1
        return self._timed(files, (chosen - pages[files]) * PAGE_BYTES, PAGE_BYTES, depth)

    def random_rate(self, reads: int, depth: int) -> float:
        """Reads of 4 KiB a second at random places, no place twice, so many at once."""
        seconds, latencies = self.random_reads(reads, depth)
        return len(latencies) / seconds

    def sequential_rate(
        self, most_bytes: int, block_bytes: int = BLOCK_BYTES, depth: int = SEQUENTIAL_DEPTH
    ) -> float:
        """Bytes a second, of the files one after another."""
        files: list[int] = []
        offsets: list[int] = []
        left = most_bytes
        for number, size in enumerate(self.sizes):
            blocks = min(size, left) // block_bytes
            files += [number] * blocks
            offsets += [block * block_bytes for block in range(blocks)]
            left -= blocks * block_bytes
        seconds, _ = self._timed(
            np.array(files, np.int64), np.array(offsets, np.int64), block_bytes, depth
        )
        return len(files) * block_bytes / seconds

    def _timed(self, files: Any, offsets: Any, block_bytes: int, depth: int) -> tuple[float, Any]:
        start = time.perf_counter()
        latencies = self._read(files, offsets, block_bytes, depth)
        return time.perf_counter() - start, latencies

    def _read(self, files: Any, offsets: Any, block_bytes: int, depth: int) -> Any:
        descriptors = np.array(self.files, np.int32)[files]
        latencies = np.zeros(len(offsets), np.uint64)
        if depth == 1:
            _ring.read_one_by_one(descriptors, offsets, block_bytes, latencies)
        elif getattr(self, "method", "io_uring") == "io_uring":
            _ring.read_at_depth(descriptors, offsets, block_bytes, depth, latencies)
        else:
            parts = [
                [np.ascontiguousarray(part) for part in np.array_split(whole, depth)]
                for whole in (descriptors, offsets)
            ]
            took = [np.zeros(len(part), np.uint64) for part in parts[1]]
            with ThreadPoolExecutor(depth) as pool:
                list(pool.map(_ring.read_one_by_one, *parts, [block_bytes] * depth, took))
            latencies = np.concatenate(took)
        return latencies


def sequential_write(path: Path, size: int) -> float:
    """Bytes a second of a new file of `size`, on stable storage; leaves the file there."""
    fd = open_direct(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.posix_fallocate(fd, 0, size)
        with mmap.mmap(-1, WRITE_BYTES) as buffer:
            # What no drive and no host can compress, or take for a block of zeros.
            buffer[:] = np.random.default_rng(5).bytes(WRITE_BYTES)

            def write(lane: int) -> None:
                for offset in range(lane * WRITE_BYTES, size, SEQUENTIAL_DEPTH * WRITE_BYTES):
                    os.pwrite(fd, buffer, offset)

            start = time.perf_counter()
            with ThreadPoolExecutor(SEQUENTIAL_DEPTH) as pool:
                list(pool.map(write, range(SEQUENTIAL_DEPTH)))
            os.fdatasync(fd)
            return size / (time.perf_counter() - start)
    finally:
        os.close(fd)


def sync_latencies(path: Path, count: int, most_seconds: float) -> Any:
    """Nanoseconds of each sync of a small append, as a journal does it: into reserved blocks."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for page in range(-(-count * RECORD_BYTES // PAGE_BYTES)):
            os.pwrite(fd, bytes(PAGE_BYTES), page * PAGE_BYTES)
        os.fsync(fd)
        taken: list[int] = []
        record = os.urandom(RECORD_BYTES)
        end = time.perf_counter() + most_seconds
        for number in range(count):
            os.pwrite(fd, record, number * RECORD_BYTES)
            start = time.perf_counter_ns()
            os.fdatasync(fd)
            taken.append(time.perf_counter_ns() - start)
            if time.perf_counter() > end:
                break
        return np.array(taken, np.uint64)
    finally:
        os.close(fd)


def measure(
    directory: Path,
    size: int,
    seconds: float,
    depths: Sequence[int] = DEPTHS,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The drive's figures, in the report's form.

    size: bytes of the file that is written and read.  seconds: about how long each depth, and the
    syncs, are measured.
    """

    def tell(what: str) -> None:
        if progress is not None:
            progress(what)

    path = directory / "drive"
    size = max(size // WRITE_BYTES, 1) * WRITE_BYTES
    tell("drive: sequential writes")
    found: dict[str, Any] = {"sequential_write": sequential_write(path, size)}
    reader = Reader([path])
    try:
        tell("drive: sequential reads")
        found["sequential_read"] = reader.sequential_rate(size)
        found["method"] = f"pread at depth 1, {reader.method} above"
        rate = reader.random_rate(200, 1)
        rows = []
        for depth in depths:
            tell(f"drive: random reads at depth {depth}")
            # As many as the depth before would do in the time: it is not yet known to do more.
            took, latencies = reader.random_reads(int(rate * seconds) + depth, depth)
            rate = len(latencies) / took
            middle, high = np.percentile(latencies, [50, 99]) / 1e3
            rows.append(
                {
                    "depth": depth,
                    "reads_per_second": rate,
                    "p50_us": float(middle),
                    "p99_us": float(high),
                }
            )
        found["random_read"] = rows
    finally:
        reader.close()
        path.unlink()
    tell("drive: syncs")
    path = directory / "syncs"
    syncs = sync_latencies(path, 20_000, seconds) / 1e3
    path.unlink()
    shares = np.percentile(syncs, [50, 90, 99, 99.9])
    names = ("p50", "p90", "p99", "p99_9")
    found["sync_us"] = {name: float(share) for name, share in zip(names, shares)}
    found["sync_us"]["max"] = float(syncs.max())
    found["sync_us"]["count"] = len(syncs)
    return found
