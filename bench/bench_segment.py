"""Packing, routing and finding in one segment of 16 M rows of (u8, f8).

CESIUM_BENCH_ROWS sets another size, CESIUM_BENCH_DIR another drive.  The segment is in the page
cache for all reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cesium._builder import SegmentBuilder
from cesium._page import TableShape
from cesium._segment import SegmentReader
from cesium._segment_view import SegmentView
from cesium.files import Files

ROWS = int(os.environ.get("CESIUM_BENCH_ROWS", "16000000"))
PROBES = 1_000_000
SHAPE = TableShape(8, 8)
UUID = bytes(16)


@pytest.fixture(scope="module")
def heads() -> Any:
    found = np.random.default_rng(0).integers(0, 2**64, ROWS, np.uint64)
    found.sort()
    return np.unique(found)


@pytest.fixture(scope="module")
def rows(heads: Any) -> Any:
    return np.random.default_rng(1).random(len(heads)).view(np.uint8)


@pytest.fixture(scope="module")
def view(heads: Any, rows: Any, bench_dir: Path) -> Iterator[SegmentView]:
    files = Files(bench_dir)
    record = build(files, heads, rows, 0)
    reader = SegmentReader(SimpleNamespace(**record), files, "segment", SHAPE, UUID)
    reader.read_ahead(check=True)
    yield SegmentView(reader)
    files.unlink("segment")


def build(files: Files, heads: Any, rows: Any, filter_keys: int) -> dict[str, Any]:
    builder = SegmentBuilder(files, "segment", 1, UUID, SHAPE, filter_keys=filter_keys)
    builder.add_columns(heads, rows)
    return builder.finish()


@pytest.mark.parametrize("filtered", [False, True])
def test_build(benchmark: Any, heads: Any, rows: Any, fresh_dir: Path, filtered: bool) -> None:
    """Pack, checksum, write and sync columns that are sorted."""
    files = Files(fresh_dir)
    count = len(heads) if filtered else 0
    record = benchmark.pedantic(build, (files, heads, rows, count), rounds=3)
    benchmark.extra_info["GB per second"] = record["bytes"] / benchmark.stats["min"] / 1e9
    files.unlink("segment")


def probes(heads: Any, order: str) -> Any:
    asked = heads[np.random.default_rng(2).integers(0, len(heads), PROBES)]
    return np.sort(asked) if order == "sorted" else asked


@pytest.mark.parametrize("order", ["random", "sorted"])
def test_route_heads(benchmark: Any, view: SegmentView, heads: Any, order: str) -> None:
    asked = probes(heads, order)
    benchmark(view.route_heads, asked, np.empty(PROBES, np.uint32))
    benchmark.extra_info["ns a key"] = benchmark.stats["min"] * 1e9 / PROBES


@pytest.mark.parametrize("order", ["random", "sorted"])
def test_find(benchmark: Any, view: SegmentView, heads: Any, order: str) -> None:
    """One by one: each waits for its own cache misses."""
    assert benchmark(view.find_heads, probes(heads, order)) == PROBES
    benchmark.extra_info["ns a key"] = benchmark.stats["min"] * 1e9 / PROBES
