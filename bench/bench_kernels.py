"""Benchmarks of the kernels beside numpy: `pytest bench/bench_kernels.py`.

Groups put a kernel next to what a numpy user would otherwise call.  CESIUM_BENCH_ROWS sets the rows
of the sorts (default 1 M; the figures of the README use 16,000,000).
"""

import os
import zlib
from typing import Any

import numpy as np
import pytest

from cesium import _kernels as kernels

ROWS = int(os.environ.get("CESIUM_BENCH_ROWS", "1000000"))
PAGES = 65_536  # of 252 heads: 126 MiB, far above any cache
TOP = 2**64 - 1
random = np.random.default_rng(7)

Benchmark = Any  # pytest-benchmark's fixture has no public type


@pytest.fixture(autouse=True)
def machine(benchmark: Benchmark) -> None:
    benchmark.extra_info["level"] = kernels.level()
    benchmark.extra_info["numpy"] = np.__version__


def columns(shape: str) -> np.ndarray:
    if shape == "random":
        return random.integers(0, TOP, ROWS, dtype=np.uint64)
    if shape == "shuffled":
        return random.permutation(ROWS).astype(np.uint64)
    if shape == "floats":
        bits = random.standard_normal(ROWS).view(np.int64)
        return np.where(bits < 0, ~bits, bits ^ np.int64(-(2**63))).view(np.uint64)
    assert shape == "outlier"
    keys = random.permutation(ROWS).astype(np.uint64)
    keys[7] = TOP
    return keys


SHAPES = ["random", "shuffled", "floats", "outlier"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_sort_columns(benchmark: Benchmark, shape: str, threads: int) -> None:
    benchmark.group = f"sort of {ROWS} {shape} uint64 keys"
    keys, out = columns(shape), np.ones(ROWS, dtype=[("key", np.uint64), ("payload", np.uint64)])
    benchmark.pedantic(kernels.sorted_columns, (keys, None, threads, out), rounds=3)


@pytest.mark.parametrize("shape", SHAPES)
def test_sort_numpy(benchmark: Benchmark, shape: str) -> None:
    benchmark.group = f"sort of {ROWS} {shape} uint64 keys"
    benchmark.pedantic(np.argsort, (columns(shape),), {"kind": "stable"}, rounds=2)


def words() -> tuple[np.ndarray, np.ndarray]:
    width = 24
    text = random.integers(97, 101, (ROWS // 4, width), dtype=np.uint8)
    return np.arange(0, text.size + 1, width, dtype=np.int64), text.ravel()


def test_sort_strings(benchmark: Benchmark) -> None:
    benchmark.group = f"sort of {ROWS // 4} strings of 24 bytes"
    benchmark.pedantic(kernels.sorted_strings, words(), rounds=3)


def test_sort_strings_numpy(benchmark: Benchmark) -> None:
    benchmark.group = f"sort of {ROWS // 4} strings of 24 bytes"
    strings = words()[1].view("S24")
    benchmark.pedantic(np.argsort, (strings,), {"kind": "stable"}, rounds=2)


@pytest.mark.parametrize("size", [64, 4092, 1 << 20])
def test_crc32c(benchmark: Benchmark, size: int) -> None:
    benchmark.group = f"checksum of {size} bytes"
    benchmark(kernels.crc32c, random.bytes(size))


@pytest.mark.parametrize("size", [64, 4092, 1 << 20])
def test_crc32_of_zlib(benchmark: Benchmark, size: int) -> None:
    benchmark.group = f"checksum of {size} bytes"
    benchmark(zlib.crc32, random.bytes(size))


@pytest.fixture(scope="module")
def heads() -> np.ndarray:
    pages = random.integers(0, TOP, (PAGES, 252), dtype=np.uint64)
    pages.sort(axis=1)
    return pages


def test_search_latency_of_one_page(benchmark: Benchmark, heads: np.ndarray) -> None:
    """100,000 searches, each waiting for the one before."""
    benchmark.group = "100,000 searches of one page of 252 heads in the cache"
    keys = random.integers(0, TOP - 1, 100_000, dtype=np.uint64)
    benchmark.pedantic(kernels.lower_bound_chain, (heads[0], keys), rounds=20)


def test_search_of_one_page_numpy(benchmark: Benchmark, heads: np.ndarray) -> None:
    benchmark.group = "100,000 searches of one page of 252 heads in the cache"
    keys = random.integers(0, TOP - 1, 100_000, dtype=np.uint64)
    benchmark.pedantic(np.searchsorted, (heads[0], keys), rounds=20)


@pytest.mark.parametrize("group", [True, False], ids=["group", "one by one"])
def test_search_of_cold_pages(benchmark: Benchmark, heads: np.ndarray, group: bool) -> None:
    benchmark.group = f"200,000 searches, each of one of {PAGES} pages"
    rows = random.integers(0, PAGES, 200_000, dtype=np.int64)
    keys = random.integers(0, TOP, 200_000, dtype=np.uint64)
    benchmark.pedantic(kernels.lower_bounds, (heads, rows, keys, group), rounds=5)


def test_bloom_lookup(benchmark: Benchmark) -> None:
    benchmark.group = "200,000 look-ups in a Bloom filter of 1 M keys"
    present = random.integers(0, TOP, 1_000_000, dtype=np.uint64)
    bloom = kernels.bloom_build(present, kernels.bloom_blocks(len(present)))
    benchmark.pedantic(kernels.bloom_lookup, (bloom, present[:200_000]), rounds=5)
