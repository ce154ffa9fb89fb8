"""What a small cache of hot keys in front of the store could gain, at most.

hot_keys.py [--rows N] [--dir DIR]: single gets of a warm store by a Zipfian choice of keys
(exponent 0.99, hot keys scattered over the key space), beside gets of the 1,000 hottest keys alone,
and of all but the 4,096 hottest alone.  The first find all that they touch in the processor's
caches, so they are as quick as a hit in a cache in front could be, if it cost nothing to ask and to
keep in order; from the others follows what the 4,096 hottest take within the mix, where the
processor's caches keep much of them already.  `dict` is the floor of the interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cesium

GETS = 200_000
HOTTEST = 1_000
CACHED = 4_096
NAMES = ("zipfian", "hottest", "rest", "dict")


def nanoseconds(get: Callable[[int], Any], keys: list[int]) -> float:
    """Processor time of one get, in a Python loop."""
    start = time.process_time()
    for key in keys:
        get(key)
    return (time.process_time() - start) / len(keys) * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description="The most that a cache of hot keys could gain.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dir", default="build")
    options = parser.parse_args()
    random = np.random.default_rng(31)
    keys = np.sort(random.integers(0, 2**64, options.rows, np.uint64))
    weights = np.cumsum(1 / np.arange(1, options.rows + 1) ** 0.99)
    scattered = random.permutation(options.rows)  # rank of hotness -> row

    def zipfian(ranks: int, first: int = 0) -> list[int]:
        low = weights[first - 1] if first else 0.0
        chosen = np.searchsorted(weights, low + random.random(GETS) * (weights[ranks - 1] - low))
        found: list[int] = keys[scattered[chosen]].tolist()
        return found

    Path(options.dir).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        with cesium.open(Path(directory) / "store", key="u8", value="f8") as store:
            store.bulk_load(keys, random.random(options.rows))
            store.range().arrays()
            results: dict[str, list[float]] = {name: [] for name in NAMES}
            for _ in range(7):
                all_keys, hot_keys = zipfian(options.rows), zipfian(HOTTEST)
                rest = zipfian(options.rows, CACHED)
                values = dict.fromkeys(hot_keys, 1.0)
                results["dict"].append(nanoseconds(values.get, hot_keys))
                results["hottest"].append(nanoseconds(store.get, hot_keys))
                results["zipfian"].append(nanoseconds(store.get, all_keys))
                results["rest"].append(nanoseconds(store.get, rest))
    middle = {name: statistics.median(figures) for name, figures in results.items()}
    share = float(weights[CACHED - 1] / weights[-1])
    cached = share * middle["hottest"] + (1 - share) * middle["rest"]
    for name, figure in middle.items():
        print(f"{name:10} {figure:6.0f} ns a get")
    print(f"the {CACHED:,} hottest of {options.rows:,} keys take {share:.0%} of the gets")
    print(f"a free cache of them: at least {cached:.0f} ns, {cached / middle['zipfian']:.2f} of it")


if __name__ == "__main__":
    main()
