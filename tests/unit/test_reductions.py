"""Reductions of ranges: against numpy on the arrays, type by type."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pandas
import pytest

import cesium
from cesium import order_statistics, reductions
from cesium.errors import ClosedError, SchemaError

NUMBERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?"]
COUNT = 3000


def store_of(value: Any, values: Any) -> Any:
    """Rows in a segment, and every seventh of them again in the memtable."""
    store = cesium.open(":memory:", key="u4", value=value)
    store.bulk_load(np.arange(len(values), dtype="u4"), values)
    store.put_many(np.arange(0, len(values), 7, dtype="u4"), values[::7])
    return store


def random_values(dtype: str) -> Any:
    generator = np.random.default_rng(3)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return generator.random(COUNT) < 0.4
    if kind == "f":
        return generator.normal(size=COUNT).astype(dtype)
    limits = np.iinfo(dtype)
    values = generator.integers(limits.min, limits.max, COUNT, dtype, endpoint=True)
    values[:2] = limits.min, limits.max
    return values


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_each_type_of_number(dtype: str, reverse: bool) -> None:
    values = random_values(dtype)
    view = store_of(dtype, values).range(5, 2501, reverse=reverse)
    expected = values[5:2501]
    exact = expected.astype(object) if expected.dtype.kind in "iub" else expected.astype("f8")
    assert view.count() == len(view) == len(expected)
    assert view.min() == expected.min() and view.max() == expected.max()
    total = exact.sum()
    if expected.dtype.kind == "f":
        assert view.sum() == pytest.approx(math.fsum(exact), rel=1e-15, abs=1e-12)
        assert type(view.sum()) is float
    else:
        assert view.sum() == total and type(view.sum()) is int
    assert view.mean() == pytest.approx(total / len(expected), rel=1e-12, abs=1e-12)
    found = view.describe()["value"]
    assert found["count"] == len(expected) and found["missing"] == 0
    assert found["std"] == pytest.approx(float(expected.astype("f8").std(ddof=1)), rel=1e-9)
    assert found["min"] == expected.min() and found["max"] == expected.max()


def test_sums_of_integers_do_not_wrap() -> None:
    most = 2**64 - 1
    view = store_of("u8", np.full(COUNT, most, "u8")).range()
    assert view.sum() == COUNT * most and view.mean() == float(most)
    least = -(2**63)
    assert store_of("i8", np.full(COUNT, least, "i8")).range().sum() == COUNT * least


def test_sums_of_floats_lose_less_than_numpy() -> None:
    values = np.random.default_rng(1).normal(size=COUNT) * 10.0 ** np.arange(COUNT).clip(0, 12)
    exact = math.fsum(values)
    found = store_of("f8", values).range().sum()
    assert abs(found - exact) <= max(abs(values.sum() - exact), abs(exact) * 1e-15)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_nan_is_passed_over_or_counts(dtype: str) -> None:
    values = random_values(dtype)
    values[::3] = np.nan
    view = store_of(dtype, values).range()
    series = pandas.Series(values.astype("f8"))
    assert view.count() == series.count() and len(view) == COUNT
    assert view.sum() == pytest.approx(series.sum(), rel=1e-12)
    assert view.mean() == pytest.approx(series.mean(), rel=1e-12)
    assert view.min() == series.min() and view.max() == series.max()
    assert view.describe()["value"]["missing"] == COUNT // 3
    for name in ("sum", "mean", "min", "max"):
        assert math.isnan(getattr(view, name)(skipna=False))


def test_infinities_and_nothing_but_nan() -> None:
    view = store_of("f8", np.array([1.0, np.inf, 2.0])).range()
    assert view.sum() == view.max() == view.mean() == math.inf and view.min() == 1.0
    assert math.isnan(view.describe()["value"]["std"])
    both = store_of("f8", np.array([np.inf, -np.inf])).range()
    assert math.isnan(both.sum()) and both.min() == -math.inf
    none = store_of("f8", np.full(3, np.nan)).range()
    assert none.count() == 0 and none.sum() == 0
    assert math.isnan(none.min()) and math.isnan(none.mean())


def test_an_empty_range_is_as_pandas_has_it() -> None:
    view = store_of("f8", np.arange(10.0)).range(100, 200)
    assert view.count() == 0 and view.sum() == 0
    assert math.isnan(view.mean()) and math.isnan(view.min()) and math.isnan(view.max())
    assert view.sample(3)[0].tolist() == [] and view.downsample(4)[0].tolist() == []
    backwards = store_of("i4", np.arange(10)).range(9, 2)
    assert backwards.sum() == 0 and backwards.count() == 0


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "datetime64[D]", "timedelta64[s]"])
def test_times_have_extremes_and_a_mean(dtype: str) -> None:
    values = np.arange(COUNT).astype(dtype)
    values[10] = "NaT"
    view = store_of(dtype, values).range()
    assert view.count() == COUNT - 1
    assert view.min() == np.array([0], dtype)[0] and view.max() == values[-1]
    assert view.mean().dtype == np.dtype(dtype)
    assert view.mean() == np.array([(COUNT * (COUNT - 1) // 2 - 10) // (COUNT - 1)], dtype)[0]
    assert np.isnat(view.min(skipna=False)) and np.isnat(view.mean(skipna=False))
    with pytest.raises(SchemaError, match=r"'value'.*has no sum"):
        view.sum()


FIELDS = [("price", "f8"), ("size", "i4"), ("venue", "S4"), ("when", "datetime64[s]")]


@pytest.fixture
def trades() -> Any:
    values = np.zeros(COUNT, FIELDS)
    values["price"] = random_values("f8")
    values["size"] = np.arange(COUNT) % 100
    values["when"] = np.arange(COUNT)
    values["when"][0] = "NaT"
    return store_of(FIELDS, values)


def test_structured_values_by_column(trades: Any) -> None:
    view = trades.range()
    _, values = view.arrays()
    assert view.sum("size") == values["size"].sum()
    assert view.mean("price") == pytest.approx(values["price"].mean(), rel=1e-12)
    assert view.count() == {"price": COUNT, "size": COUNT, "venue": COUNT, "when": COUNT - 1}
    with pytest.raises(SchemaError, match=r"'venue'.*has no mean; name another column"):
        view.mean()
    with pytest.raises(SchemaError, match=r"no column 'weight': there are price, size"):
        view.sum("weight")
    found = view.describe()
    assert list(found) == ["price", "size", "when"]
    assert str(found).splitlines()[0].split() == ["price", "size", "when"]
    assert pandas.DataFrame(found).loc["count"].tolist() == [COUNT, COUNT, COUNT - 1]
    numbers = cesium.open(":memory:", key="u4", value=[("a", "i2"), ("b", "f4")])
    numbers[1] = (2, 0.5)
    assert numbers.range().max() == {"a": 2, "b": 0.5}


@pytest.mark.parametrize("limit", [64, 1 << 20])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 1000, COUNT])
def test_quartiles_are_those_of_pandas(
    trades: Any, rows: int, limit: int, monkeypatch: Any
) -> None:
    for module in (reductions, order_statistics):
        monkeypatch.setattr(module, "PARTITION_BYTES", limit)
    monkeypatch.setattr(reductions, "BATCH_ROWS", 100)
    with trades.transaction() as transaction:
        transaction[5] = (np.nan, -7, b"", np.datetime64("2026-01-01", "s"))
        for view in (trades.range(limit=rows), transaction.range(reverse=True, limit=rows)):
            found = pandas.DataFrame(view.describe())
            frame = pandas.DataFrame(view.values().arrays())
            expected = frame[["price", "size"]].describe()
            lines = ["count", "mean", "std", "min", "25%", "50%", "75%", "max"]
            for name in ("price", "size"):
                one = found[name].loc[lines].astype("f8").to_numpy()
                assert one == pytest.approx(expected[name].to_numpy(), rel=1e-12, nan_ok=True)
            when = frame["when"].dropna().sort_values(ignore_index=True)
            for line, part in (("25%", 0.25), ("50%", 0.5), ("75%", 0.75)):
                if when.empty:
                    assert np.isnat(found["when"][line])
                else:
                    assert found["when"][line] == when.quantile(part).floor("s")


def test_quartiles_between_values_far_apart() -> None:
    most, least = 2**63 - 1, -(2**63)
    whole = store_of("i8", np.array([least, most])).range().describe()["value"]
    assert (whole["25%"], whole["50%"], whole["75%"]) == (-(2.0**62), -0.5, 2.0**62)
    ends = store_of("f8", np.array([-np.inf, np.inf, np.inf])).range().describe()["value"]
    assert (ends["50%"], ends["75%"]) == (math.inf, math.inf)
    bools = store_of("?", np.array([False, True])).range().describe()["value"]
    assert (bools["min"], bools["25%"], bools["max"]) == (False, 0.25, True)
    none = store_of("f8", np.full(3, np.nan)).range().describe()["value"]
    assert math.isnan(none["50%"]) and none["count"] == 0
    halves = store_of("f2", np.array([1, 2], "f2")).range().describe()["value"]
    assert halves["25%"] == 1.25 and type(halves["25%"]) is float


def test_limits_and_batches_of_a_range(trades: Any) -> None:
    view = trades.range(10, None, limit=1000)
    assert view.count("size") == 1000
    assert view.sum("size") == sum((10 + row) % 100 for row in range(1000))
    last = trades.range(reverse=True, limit=3)
    assert last.sum("size") == 99 + 98 + 97


def test_what_cannot_be_reduced_is_said() -> None:
    texts = cesium.open(":memory:", key="u4", value="str")
    texts[1] = "a"
    assert texts.range().count() == 1
    for name in ("sum", "mean", "min", "max"):
        with pytest.raises(SchemaError, match=f"'value': str has no {name}"):
            getattr(texts.range(), name)()
    with pytest.raises(SchemaError, match="describe needs a column"):
        texts.range().describe()
    with pytest.raises(SchemaError, match="downsample needs a column"):
        texts.range().downsample(10)
    with pytest.raises(SchemaError, match="a range of keys"):
        texts.keys().sum()
    waves = cesium.open(":memory:", key="u4", value="c16")
    with pytest.raises(SchemaError, match="complex128 has no sum"):
        waves.range().sum()
    wide = cesium.open(":memory:", key="u4", value=[("a", "f8"), ("b", "S600")])
    with pytest.raises(SchemaError, match="more than 512 bytes"):
        wide.range().sum("a")


def test_samples(trades: Any) -> None:
    view = trades.range(100, 2000)
    keys, values = view.sample(50, seed=1)
    again, _ = view.sample(50, seed=1)
    assert keys.tolist() == again.tolist() and len(set(keys.tolist())) == 50
    assert keys.tolist() == sorted(keys.tolist()) and 100 <= keys[0] and keys[-1] < 2000
    assert [row[1] for row in values.tolist()] == [key % 100 for key in keys.tolist()]
    assert len(view.sample(10_000)[0]) == 1900
    assert view.sample(0)[0].tolist() == []
    assert len(view.keys().sample(7)) == 7
    counts = np.zeros(20)
    small = store_of("i4", np.arange(20)).range()
    for seed in range(300):
        counts[small.sample(5, seed)[0]] += 1
    assert counts.min() > 40  # 75 each, give or take
    backwards = trades.range(reverse=True).sample(5, seed=2)[0].tolist()
    assert backwards == sorted(backwards, reverse=True)
    texts = cesium.open(":memory:", key="str", value="bytes")
    texts.put_many([f"{row:04}" for row in range(500)], [b"%d" % row for row in range(500)])
    names, datas = texts.range().sample(9, seed=4)
    assert [b"%d" % int(name) for name in names] == list(datas)
    with pytest.raises(ValueError, match="at least 0, not -1"):
        view.sample(-1)


@pytest.mark.parametrize("reverse", [False, True])
def test_downsampling_keeps_the_ends_and_the_extremes(reverse: bool) -> None:
    values = random_values("f8")
    values[1234] = 100.0
    values[77] = np.nan
    view = store_of("f8", values).range(reverse=reverse)
    keys, kept = view.downsample(100)
    assert 90 <= len(keys) <= 100 and len(set(keys.tolist())) == len(keys)
    assert keys.tolist() == sorted(keys.tolist(), reverse=reverse)
    assert {0, COUNT - 1} <= set(keys.tolist()) and 1234 in keys.tolist()
    assert np.nanmin(values) in kept.tolist() and values[keys].tolist() == kept.tolist()
    assert len(view.downsample(COUNT)[0]) == COUNT
    with pytest.raises(ValueError, match="at least 4"):
        view.downsample(3)
    with pytest.raises(ValueError, match="one of 'minmax', 'lttb'"):
        view.downsample(10, method="mean")


def test_downsampling_by_another_package(trades: Any, monkeypatch: Any) -> None:
    keys, values = trades.range().downsample(50, "price", "lttb")
    assert len(keys) == len(values) == 50 and keys[0] == 0 and keys[-1] == COUNT - 1
    with pytest.raises(SchemaError, match="name one of price, size, when"):
        trades.range().downsample(50)
    monkeypatch.setitem(sys.modules, "tsdownsample", None)
    with pytest.raises(ImportError, match=r"pip install 'cesiumdb\[downsample\]'"):
        trades.range().downsample(50, "price", "lttb")
    assert len(trades.range().downsample(50, "price")[0]) <= 50


def test_a_stretch_without_numbers() -> None:
    values = np.arange(1000.0)
    values[300:700] = np.nan
    keys, kept = store_of("f8", values).range().downsample(42)
    assert np.isnan(kept).any() and keys[0] == 0 and keys[-1] == 999
    assert len(keys) <= 42


def test_other_views(trades: Any) -> None:
    with trades.snapshot() as snapshot:
        before = snapshot.range().sum("size")
        trades.delete_range(0, 100)
        assert snapshot.range().sum("size") == before
    assert trades.range().sum("size") == before - sum(range(100))
    with trades.transaction() as transaction:
        transaction.delete_range(100, 200)
        assert transaction.range().sum("size") == before - 2 * sum(range(100))
        assert transaction.range().sample(3)[0].min() >= 200
    trades.close()
    with pytest.raises(ClosedError):
        trades.range()


def test_what_was_reduced_was_read(trades: Any) -> None:
    """What an optimistic transaction reduced is part of what it read."""
    transaction = trades.transaction(optimistic=True)
    with pytest.raises(cesium.ConflictError):
        with transaction:
            total = transaction.range(0, 100).sum("size")
            trades.put(5, (1.0, 77, b"x", np.datetime64(0, "s")))
            transaction.put(5000, (float(total), 0, b"", np.datetime64(0, "s")))
