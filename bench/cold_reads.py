"""Reads of a store whose pages are not in memory, beside what the drive itself gives.

cold_reads.py [--rows N] [--wide-rows N] [--rounds N] [--dir DIR] [--only NAME] makes two stores
(8 + 8 bytes, 8 + 100 bytes), then in each round measures the drive (as `cesium bench` does, and by
fio where it is installed: the better one counts) and, right behind it, each kind of read.  Two
kinds of cold:

- new: the page cache was dropped, the store opened again; no page has been checked yet;
- evicted: the store stays open, all its pages were read and checked, then dropped from memory.

Footers, fences and filters are read before the time counts.  What a read cost the drive is told by
`read_bytes` of /proc/self/io, and that the pages were gone by mincore.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import cesium
from cesium.benchmark.drive import PAGE_BYTES, Reader

libc = ctypes.CDLL(None, use_errno=True)
MADV_DONTNEED = 4


# -- what is in memory


def segments_of(store: Path) -> list[Path]:
    return sorted(store.glob("segment-*"))


def drop(store: Path) -> None:
    """Takes a store's segments out of the page cache, those mapped here too."""
    names = {str(path.resolve()) for path in segments_of(store)}
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_, name = line.split(maxsplit=5)
        if name in names:  # what is mapped stays: unmap its pages, not the mapping
            start, end = (int(number, 16) for number in place.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
    for path in segments_of(store):
        fd = os.open(path, os.O_RDONLY)
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def resident_share(store: Path) -> float:
    """How much of a store's segments the page cache holds."""
    pages = resident = 0
    for path in segments_of(store):
        with open(path, "rb") as file:
            view = np.frombuffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), np.uint8)
        there = np.zeros(-(-len(view) // PAGE_BYTES), np.uint8)
        libc.mincore(
            ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)),
            there.ctypes.data_as(ctypes.c_void_p),
        )  # fmt: skip
        pages += len(there)
        resident += int((there & 1).sum())
    return resident / pages


def read_bytes() -> int:
    """Bytes that this process had the drive read so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not say read_bytes in /proc/self/io")


# -- stores


class Subject:
    """A store to be read cold: its path, its keys, and how long a row is."""

    def __init__(self, path: Path, rows: int, value_bytes: int, random: Any) -> None:
        self.path, self.rows, self.value_bytes = path, rows, value_bytes
        self.keys = np.sort(random.integers(0, 2**64, rows, np.uint64))
        value = "f8" if value_bytes == 8 else f"V{value_bytes}"
        self.name = f"8 + {value_bytes} bytes, {rows:,} rows"
        with cesium.open(path, key="u8", value=value, flag="n") as store:
            step = 4_000_000
            for start in range(0, rows, step):
                keys = self.keys[start : start + step]
                if value_bytes == 8:
                    values: Any = random.random(len(keys))
                else:
                    values = np.frombuffer(random.bytes(len(keys) * value_bytes), f"V{value_bytes}")
                store.bulk_load(keys, values)
        gc.collect()

    @contextmanager
    def opened(self, kind: str) -> Iterator[Any]:
        """The store, open, with fences and footers in memory and no data page."""
        if kind == "new":
            drop(self.path)
        with cesium.open(self.path, flag="r") as store:
            if kind == "evicted":
                for _ in store.range().batches(1 << 20):
                    pass
                drop(self.path)
            share = resident_share(self.path)
            assert share < 0.02, f"{share:.0%} of the store is still in memory"
            for reader in store.core.version.segments():
                reader.map()
                footer = reader.footer()
                first = footer["fence_first"]
                for number in range(first, first + footer["fence_pages"]):
                    reader.page(number)
            yield store


# -- measuring


class Results:
    """Figures by name, of all rounds."""

    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, **figures: float) -> None:
        for what, figure in figures.items():
            self.figures[f"{name} | {what}"].append(figure)

    def show(self) -> None:
        for name, figures in self.figures.items():
            low, middle, high = min(figures), statistics.median(figures), max(figures)
            print(f"{name:64} {middle:12,.2f}   ({low:,.2f} .. {high:,.2f}, {len(figures)} rounds)")


def timed(work: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and bytes read from the drive."""
    before, start = read_bytes(), time.perf_counter()
    work()
    return time.perf_counter() - start, read_bytes() - before


def fio_rates(path: Path) -> tuple[float, float]:
    """(random 4 KiB reads at depth 128, bytes of 1 MiB reads at depth 4) a second, or zeros."""
    if shutil.which("fio") is None:
        return 0.0, 0.0
    found = []
    for pattern, block, depth in (("randread", "4k", 128), ("read", "1M", 4)):
        command = [
            "fio", "--name=probe", f"--filename={path}", f"--rw={pattern}", f"--bs={block}",
            f"--iodepth={depth}", "--direct=1", "--ioengine=io_uring", "--readonly",
            f"--size={path.stat().st_size // PAGE_BYTES * PAGE_BYTES}", "--runtime=1",
            "--output-format=json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        read = json.loads(done.stdout)["jobs"][0]["read"]
        found.append(read["iops"] if pattern == "randread" else read["bw_bytes"])
    return found[0], found[1]


def drive_rates(subject: Subject, results: Results) -> tuple[float, float, float]:
    """The drive now: reads a second at depth 1 and 128, bytes a second in sequence."""
    reader = Reader(segments_of(subject.path))
    one = reader.random_rate(2_000, 1)
    many = reader.random_rate(40_000, 128)
    sequence = reader.sequential_rate(1 << 29)
    reader.close()
    largest = max(segments_of(subject.path), key=lambda path: path.stat().st_size)
    fio_many, fio_sequence = fio_rates(largest)
    results.add(
        f"drive ({reader.method})",
        **{
            "random reads/s, depth 1": one, "random reads/s, depth 128": many,
            "same, fio": fio_many, "sequential MB/s": sequence / 1e6,
            "sequential MB/s, fio": fio_sequence / 1e6,
        },
    )  # fmt: skip
    return one, max(many, fio_many), max(sequence, fio_sequence)


def measure_get_many(subject: Subject, kind: str, results: Results, random: Any) -> None:
    for batch in (1_000, 10_000, 100_000):
        _, depth_128, _ = drive_rates(subject, Results())
        with subject.opened(kind) as store:
            seconds, read = 0.0, 0
            for _ in range(max(1, 20_000 // batch)):
                keys = subject.keys[random.integers(0, subject.rows, batch)]
                spent, bytes_ = timed(lambda keys=keys: store.get_many(keys))  # type: ignore[misc]
                seconds, read = seconds + spent, read + bytes_
        rate = read / PAGE_BYTES / seconds
        results.add(
            f"{subject.name} | {kind} | get_many({batch:,})",
            **{"pages/s": rate, "of the drive at depth 128": rate / depth_128},
        )


def measure_scan(subject: Subject, kind: str, results: Results, random: Any) -> None:
    for name, work in (
        ("arrays()", lambda store: store.range().arrays()),
        ("batches()", lambda store: [None for _ in store.range().batches()]),
        ("reverse batches()", lambda s: [None for _ in s.range(reverse=True).batches()]),
    ):
        _, _, sequence = drive_rates(subject, Results())
        with subject.opened(kind) as store:
            seconds, read = timed(lambda: work(store))  # noqa: B023
        results.add(
            f"{subject.name} | {kind} | scan by {name}",
            **{"MB/s": read / seconds / 1e6, "of the drive's sequence": read / seconds / sequence},
        )


def measure_single(subject: Subject, kind: str, results: Results, random: Any) -> None:
    depth_1, _, _ = drive_rates(subject, Results())
    with subject.opened(kind) as store:
        costs: list[float] = []
        sizes: list[int] = []
        for key in subject.keys[random.choice(subject.rows, 2_000, replace=False)].tolist():
            spent, bytes_ = timed(lambda key=key: store[key])  # type: ignore[misc]
            if bytes_:  # else it lies in a page that is there by now
                costs.append(spent)
            sizes.append(bytes_)
    rate = 1 / statistics.fmean(costs)
    results.add(
        f"{subject.name} | {kind} | get",
        **{
            "us": statistics.median(costs) * 1e6,
            "of the drive at depth 1": rate / depth_1,
            "most KiB read": max(sizes) / 1024,
            "mean KiB of cold ones": sum(sizes) / len(costs) / 1024,
        },
    )  # fmt: skip


def measure_short_ranges(subject: Subject, kind: str, results: Results, random: Any) -> None:
    for rows in (100, 5_000):
        with subject.opened(kind) as store:
            spent: list[float] = []
            read = 0
            for start in random.choice(subject.rows - rows, 200, replace=False):
                lower, upper = (int(key) for key in subject.keys[[start, start + rows]])
                seconds, bytes_ = timed(lambda: store.range(lower, upper).arrays())  # noqa: B023
                if bytes_:
                    spent.append(seconds)
                read += bytes_
        results.add(
            f"{subject.name} | {kind} | range of {rows:,} rows",
            us=statistics.median(spent) * 1e6,
            **{"KiB read each": read / len(spent) / 1024},
        )


MEASURES = {
    "get_many": measure_get_many,
    "scan": measure_scan,
    "get": measure_single,
    "ranges": measure_short_ranges,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Cold reads beside the drive's own rates.")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--wide-rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="build")
    parser.add_argument("--only", choices=MEASURES, action="append")
    options = parser.parse_args()
    random = np.random.default_rng(23)
    results = Results()
    # A virtual machine gets its memory from the host at the first touch: that is not the read's.
    np.empty(options.rows * 32 + options.wide_rows * 256, np.uint8).fill(1)
    Path(options.dir).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        subjects = [
            Subject(Path(directory) / name, rows, value_bytes, random)
            for name, rows, value_bytes in (
                ("narrow", options.rows, 8), ("wide", options.wide_rows, 100),
            )
            if rows
        ]  # fmt: skip
        for number in range(options.rounds):
            for subject in subjects:
                drive_rates(subject, results)
                for name, measure in MEASURES.items():
                    for kind in ("new", "evicted"):
                        if options.only is None or name in options.only:
                            measure(subject, kind, results, random)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        results.show()


if __name__ == "__main__":
    main()
