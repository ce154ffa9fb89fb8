"""Run as a program by bench_store: how much anonymous memory a load takes beyond its inputs.

loading_memory.py DIRECTORY ROWS MEMORY_LIMIT prints the highest RssAnon in bytes during a load of
shuffled rows, less what it was just before with the inputs in memory.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np

import cesium

SECONDS_BETWEEN_SAMPLES = 0.001


def anonymous_bytes() -> int:
    """Anonymous memory that this process has now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not say RssAnon in /proc/self/status")


def measure(directory: str, rows: int, memory_limit: int) -> int:
    random = np.random.default_rng(7)
    keys, values = random.integers(0, 2**64, rows, np.uint64), random.random(rows)
    with cesium.open(directory, key="u8", value="f8", memory_limit=memory_limit) as store:
        store.put(1, 1.0)
        baseline, peak, done = anonymous_bytes(), 0, threading.Event()

        def sample() -> None:
            nonlocal peak
            while not done.wait(SECONDS_BETWEEN_SAMPLES):
                peak = max(peak, anonymous_bytes())

        sampler = threading.Thread(target=sample)
        sampler.start()
        store.bulk_load(keys, values, threads=1)
        done.set()
        sampler.join()
    return peak - baseline


if __name__ == "__main__":
    print(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
