"""Values at ranks: against a sort, whether a column is partitioned or narrowed down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cesium import order_statistics
from cesium.order_statistics import values_at

COUNT = 4000
DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?"]
TIMES = ["datetime64[ns]", "timedelta64[s]", "datetime64[D]"]
LIMITS = [1, 100, 5000, 1 << 20]  # bytes: from one value at a time to all of them at once


def any_bits(dtype: str) -> Any:
    """Values of any bits, or so: infinities, NaN and NaT, and the ends of the domain."""
    generator = np.random.default_rng(7)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return generator.random(COUNT) < 0.3
    values = generator.integers(0, 256, COUNT * kind.itemsize, "u1").view(kind).copy()
    if kind.kind == "f":
        values[:40] = np.repeat([np.inf, -np.inf, np.nan, 0.0, -0.0], 8)
    elif kind.kind in "mM":
        values[:8] = np.array(["NaT"], kind)
    else:
        values[:2] = np.iinfo(kind).min, np.iinfo(kind).max
    return values


def check(values: Any, ranks: list[int] | None = None) -> None:
    kind = values.dtype.kind
    missing = np.isnan(values) if kind == "f" else np.isnat(values) if kind in "mM" else None
    present = np.sort(values if missing is None else values[~missing])
    if ranks is None:
        ranks = sorted({0, 1, *(len(present) * part // 4 for part in (1, 2, 3)), len(present) - 1})
    pieces = [values[start : start + 1000] for start in range(0, len(values), 1000)]
    found = values_at(
        lambda: iter(pieces), values.dtype, len(present), present[0], present[-1], ranks
    )
    assert found == present[ranks].tolist() or (np.array(found) == present[ranks]).all()


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("dtype", [*DTYPES, *TIMES])
def test_of_each_type(dtype: str, limit: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(order_statistics, "PARTITION_BYTES", limit)
    values = any_bits(dtype)
    check(values)
    check(values, [17])
    check(values[-1:].repeat(COUNT))  # all the same
    check(np.sort(values)[: COUNT // 3])  # without the upper end
    check(values[40:41].repeat(2), [0, 1])


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("ends", [(0.0, -0.0), (-0.0, 0.0)])
def test_zeros_of_both_signs_are_one_place(ends: Any, limit: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(order_statistics, "PARTITION_BYTES", limit)
    values = np.array([0.0, -0.0, 1.0, 2.0, -0.0] * 300)
    found = values_at(lambda: [values], values.dtype, 1500, ends[0], 2.0, [0, 899, 900, 1200])
    assert found == [0.0, 0.0, 1.0, 2.0]
    values = -values
    found = values_at(lambda: [values], values.dtype, 1500, -2.0, ends[1], [0, 300, 600, 1499])
    assert found == [-2.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize("spacing", [1, 1 << 30])
def test_times_close_together_are_narrowed_down(spacing: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(order_statistics, "PARTITION_BYTES", 512)
    start = np.datetime64("2026-01-01", "ns")
    check(start + np.random.default_rng(1).permutation(COUNT) * np.timedelta64(spacing, "ns"))
