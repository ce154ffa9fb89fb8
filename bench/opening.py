"""Opening cleanly closed stores of few and of many segments.

opening.py [--segments N ...] [--rounds N] [--dir DIR] makes a store for each number of segments,
all in its last tier and as small as they get, then opens and closes each in turn, and prints what
opening took: milliseconds by the clock, and of the processor.  For a reader ("r"), which maps each
segment so as to keep it, and for a writer ("w"), which syncs what it found and touches none.  A
segment of the usual 64 MiB costs the same: 1,600 of them are 100 GB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

import cesium
from cesium import loader, merging

SEGMENT_ROWS = 16384  # what the smallest segments hold


def make(path: Path, segments: int) -> None:
    """A store of so many segments, cleanly closed."""
    options = cesium.Options("u8", "f8", background=False)
    keys = np.arange(segments * SEGMENT_ROWS, dtype=np.uint64)
    with cesium.open(path, options=options) as store:
        store.bulk_load(keys, keys.view(np.float64))
        store.checkpoint()
        found = store.stats().segments
    assert found == segments, f"{found} segments, not {segments}"


def opened(path: Path, flag: str) -> tuple[float, float]:
    """Milliseconds of one opening: by the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    store = cesium.open(path, flag=flag)
    spent = time.perf_counter() - clock, time.process_time() - processor
    store.close()
    return spent[0] * 1e3, spent[1] * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="What opening a store of many segments takes.")
    parser.add_argument("--segments", type=int, nargs="+", default=[16, 160, 1600])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--dir", default="build")
    options = parser.parse_args()
    loader.SEGMENT_BYTES = 1
    merging.SMALL_BYTES = 0  # or closing joins them
    Path(options.dir).mkdir(exist_ok=True)
    times: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        paths = {segments: Path(directory) / str(segments) for segments in options.segments}
        for segments, path in paths.items():
            make(path, segments)
        for _ in range(options.rounds):
            for segments, path in paths.items():
                for flag in ("w", "r"):
                    times[flag, segments].append(opened(path, flag))
    print(f"load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    print("flag  segments  ms: median  least   of the processor: median  least")
    for (flag, segments), found in sorted(times.items()):
        clock, processor = zip(*found, strict=True)
        print(
            f"{flag:4} {segments:9,} {statistics.median(clock):11.2f} {min(clock):6.2f}"
            f" {statistics.median(processor):25.2f} {min(processor):6.2f}"
        )


if __name__ == "__main__":
    main()
