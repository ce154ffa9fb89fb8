"""One put and one find in a memtable of u8 keys and f8 values; pytest-benchmark, a batch a round.

The figures are for a batch: divide by the keys in it (`extra_info["keys"]`) for the time of one.
Compare rows of one run: what dominates is the latency of memory.
"""

import numpy as np
import pytest

from cesium._memtable import Memtable
from cesium._page import TableShape

BATCH = 10_000
ROUNDS = 20


def fill(entries: int) -> tuple[Memtable, np.ndarray]:
    """A memtable with so many entries, and the keys that are in it, then those that are not yet."""
    rng = np.random.default_rng(entries)
    keys = rng.permutation(entries + BATCH * (ROUNDS + 2)).astype(np.uint64)
    keys *= np.uint64(11400714819323198485)  # an odd factor: still distinct, all over the range
    memtable = Memtable(TableShape(8, 8))
    memtable.put_many(keys[:entries], keys[:entries].view(np.uint8).reshape(-1, 8))
    return memtable, keys


@pytest.fixture(scope="module", params=[100_000, 1_000_000, 4_000_000])
def filled(request) -> tuple[int, Memtable, np.ndarray]:
    return request.param, *fill(request.param)


def test_find_random(benchmark, filled) -> None:
    entries, memtable, keys = filled
    shuffled = np.random.default_rng(0).permutation(keys[:entries])
    at = iter(range(0, entries, BATCH))

    def batch():
        start = next(at) % entries
        return (shuffled[start : start + BATCH],), {}

    benchmark.extra_info["keys"] = BATCH
    found = benchmark.pedantic(
        memtable.find_many, setup=batch, rounds=min(ROUNDS, entries // BATCH)
    )
    assert found == BATCH


def test_put_random(benchmark, filled) -> None:
    entries, memtable, keys = filled
    at = iter(range(entries, len(keys), BATCH))

    def batch():
        start = next(at)
        rows = keys[start : start + BATCH]
        return (rows, rows.view(np.uint8).reshape(-1, 8)), {}

    benchmark.extra_info["keys"] = BATCH
    benchmark.pedantic(memtable.put_many, setup=batch, rounds=ROUNDS)
    assert memtable.counters()["entries"] == entries + BATCH * ROUNDS


def test_put_ascending(benchmark) -> None:
    memtable = Memtable(TableShape(8, 8))
    at = iter(range(0, 2**62, BATCH))

    def batch():
        start = next(at)
        rows = np.arange(start, start + BATCH, dtype=np.uint64)
        return (rows, rows.view(np.uint8).reshape(-1, 8)), {}

    benchmark.extra_info["keys"] = BATCH
    benchmark.pedantic(memtable.put_many, setup=batch, rounds=ROUNDS)
    counters = memtable.counters()
    assert counters["entries"] / counters["pages"] > 240  # ascending puts leave full pages


def test_put_under_a_snapshot(benchmark) -> None:
    """Every batch meets a fresh snapshot: nearly every put copies its page first."""
    memtable, keys = fill(1_000_000)
    at = iter(range(1_000_000, len(keys), BATCH))
    held = []

    def batch():
        held[:] = [memtable.snapshot()]
        start = next(at)
        rows = keys[start : start + BATCH]
        return (rows, rows.view(np.uint8).reshape(-1, 8)), {}

    benchmark.extra_info["keys"] = BATCH
    benchmark.pedantic(memtable.put_many, setup=batch, rounds=ROUNDS)
    assert memtable.counters()["page_copies"] > 0
