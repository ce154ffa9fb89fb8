"""Ranges as arrays: short ones out of a few pages, those that outgrow the buffer, and the forms of
columns; each beside the rows that iterating gives, which come another way."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium

COUNT = 20_000
# Pages have 252 rows, the buffer 2,048.
ROWS = [0, 1, 2, 100, 251, 252, 253, 900, 1100, 2047, 2048, 2049, 9000]

VALUE_TYPES: list[Any] = [
    *("u8", "i8", "f8", "i2", "bool", "c16", "S3", "U2", "V5", "datetime64[ns]", "bytes", "str"),
    [("a", "i2"), ("b", "f8")],
    ("f4", (2, 3)),
]


def keys_of(count: int) -> Any:
    return np.arange(count, dtype="u8") * 3 + 5


def check(store: Any, lower: int, upper: int, reverse: bool, limit: int | None = None) -> int:
    view = store.range(lower, upper, reverse=reverse, limit=limit)
    pairs = list(view)
    keys, values = view.arrays()
    assert keys.tolist() == [key for key, _ in pairs]
    assert values.tolist() == [value for _, value in pairs]
    assert view.keys().arrays().tolist() == keys.tolist()
    assert view.values().arrays().tolist() == values.tolist()
    assert keys.flags.writeable and values.flags.writeable
    return len(pairs)


@pytest.fixture(scope="module")
def loaded() -> Any:
    """One segment of full pages, all of them touched."""
    store = cesium.open(":memory:", key="u8", value="f8")
    store.bulk_load(keys_of(COUNT), np.arange(COUNT) / 2)
    assert len(store.range().arrays()[0]) == COUNT
    return store


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_of_one_segment(loaded: Any, rows: int, reverse: bool) -> None:
    """Bounds on keys and between them, at the edges of pages and inside, at both ends."""
    for first in (0, 1, 251, 252, 253, COUNT - rows):
        lower, upper = 5 + 3 * first, 5 + 3 * (first + rows)
        for shift in (-1, 0):
            assert check(loaded, lower + shift, upper + shift, reverse) == rows
    assert check(loaded, 0, 5 + 3 * rows, reverse) == rows
    assert check(loaded, 5 + 3 * (COUNT - rows), 1 << 63, reverse) == rows
    assert check(loaded, 5 + 3 * 100, 5 + 3 * (100 + rows), reverse, 7) == min(rows, 7)
    assert check(loaded, 5 + 3 * 100, 1 << 63, reverse, rows) == rows


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_with_newer_sources_and_deletes(rows: int, reverse: bool) -> None:
    """A memtable that overwrites and deletes, then segments of both kinds."""
    store = cesium.open(":memory:", key="u8", value="f8")
    store.bulk_load(keys_of(COUNT), np.arange(COUNT) / 2)
    bounds = [(5 + 3 * first, 5 + 3 * (first + rows)) for first in (0, 250, 3000)]
    store.put_many(keys_of(COUNT)[::7], np.zeros(COUNT)[::7])
    store.delete_many(keys_of(COUNT)[3::9])
    store.put_many(keys_of(COUNT) + 1, -np.arange(COUNT, dtype="f8"))
    for lower, upper in bounds:
        assert check(store, lower, upper, reverse) <= 2 * rows
    store.checkpoint()
    for lower, upper in bounds:
        found = check(store, lower, upper, reverse)
        assert found >= rows
        assert check(store, lower, upper, reverse, found // 2) == found // 2
    store.delete_range(5 + 3 * 10, 5 + 3 * 300)
    assert check(store, *bounds[0], reverse) <= 2 * rows
    store.compact()
    assert len(store.range(*bounds[1])) == check(store, *bounds[1], reverse)


@pytest.mark.parametrize(
    "key", ["u8", "i8", "u4", "i2", "f8", "datetime64[s]"], ids=lambda key: key.replace("[", "-")
)
@pytest.mark.parametrize("value", VALUE_TYPES, ids=str)
def test_of_every_form_of_columns(key: Any, value: Any) -> None:
    """A few rows and too many for the buffer: what iterating gives, in the codecs' own dtypes."""
    count = 5000
    store: Any = cesium.open(":memory:", key=key, value=value)
    keys = np.arange(count).astype(store.keys_codec.spec)
    text = [str(number % 97) for number in range(count)]
    if value == "bytes":
        values: Any = [piece.encode() for piece in text]
    elif value == "str":
        values = text
    elif value == "V5":
        values = np.array([piece.zfill(5).encode() for piece in text]).view("V5")
    elif isinstance(value, tuple):
        values = np.arange(count * 6, dtype="f4").reshape(count, 2, 3)
    elif isinstance(value, list):
        values = np.zeros(count, value)
        values["a"], values["b"] = np.arange(count), np.arange(count) / 3
    elif value[0] in "SU":
        values = np.array(text).astype(value)
    else:
        values = (np.arange(count) % 97).astype(value)
    store.bulk_load(keys, values)
    expected = np.asarray(values)
    for first, last in ((0, 1), (7, 107), (0, count - 1), (3, 3)):
        view = store.range(keys[first], keys[last])
        found, cells = view.arrays()
        assert found.dtype == keys.dtype and (found == keys[first:last]).all()
        assert np.asarray(cells).tolist() == expected[first:last].tolist()
        assert np.asarray(view.values().arrays()).tolist() == expected[first:last].tolist()
        assert (view.keys().arrays() == found).all()
        for (one, cell), other, wanted in zip(view, found, cells, strict=True):
            assert one == other and np.array_equal(
                np.frombuffer(cell, "V5")[0] if value == "V5" else cell,
                tuple(wanted.tolist()) if isinstance(value, list) else wanted,
            )
    store.close()


def test_they_are_counted_and_timed(loaded: Any) -> None:
    before = loaded.stats()
    for _ in range(5000):
        loaded.range(5, 305).arrays()
    after = loaded.stats()
    assert after.counters["ranges"] - before.counters["ranges"] == 5000
    assert after.latency["range"].calls - before.latency["range"].calls > 4000


def test_a_range_over_the_edge_of_two_segments(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="f8", durability="process")
    for part in range(3):
        store.bulk_load(keys_of(COUNT)[part * 5000 : part * 5000 + 5000], np.arange(5000.0))
    for at in (5000, 10_000):
        for reverse in (False, True):
            for _ in range(2):  # cold, and warm
                assert check(store, 5 + 3 * (at - 60), 5 + 3 * (at + 40), reverse) == 100
                assert check(store, 5 + 3 * (at - 60), 5 + 3 * at, reverse) == 60
                assert check(store, 5 + 3 * at, 5 + 3 * (at + 40), reverse) == 40
    store.close()


def test_closed_and_changed(loaded: Any) -> None:
    """The arrays are copies; a closed store refuses."""
    store = cesium.open(":memory:", key="u8", value="f8")
    store.bulk_load(keys_of(1000), np.arange(1000.0))
    view = store.range(5, 305)
    keys, values = view.arrays()
    keys[:] = 0
    values[:] = 0
    assert view.arrays()[1].tolist() == np.arange(100.0).tolist()
    store[6] = 1.5
    assert view.arrays()[0].tolist()[:3] == [5, 6, 8]
    store.close()
    with pytest.raises(cesium.ClosedError):
        view.arrays()


FAULTS = """
import resource, sys, cesium
store = cesium.open(sys.argv[1], flag="r")
def read(first):
    store.range(first, first + 100_000).arrays()
for first in range(0, 300_000, 50_000):
    read(first)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for first in range(0, 300_000, 15_000):
    read(first)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators, other rules")
def test_arrays_of_one_range_after_another_take_the_same_memory(tmp_path: Path) -> None:
    """Of 20 ranges of 1.6 MB; by itself glibc has the kernel zero all 7,800 pages anew."""
    with cesium.open(tmp_path / "s", key="u8", value="f8") as store:
        store.bulk_load(np.arange(400_000, dtype="u8"), np.arange(400_000.0))
    command = [sys.executable, "-c", FAULTS, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2000
