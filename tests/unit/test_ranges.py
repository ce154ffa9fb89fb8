"""Ranges: what the exhaustive bounds and the model do not single out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.opening import acquire

COUNT = 1000


@pytest.fixture
def store() -> Any:
    store = cesium.open(":memory:", key="u8", value="f8")
    store.bulk_load(np.arange(COUNT, dtype="u8") * 2, np.arange(COUNT, dtype="f8"))
    return store


def tiny(path: Path | str, key: Any, value: Any, **more: Any) -> Any:
    options = cesium.Options(key, value, durability="process", **more)
    return cesium.Store(acquire(path, options, 4), options)


@pytest.mark.parametrize("reverse", [False, True])
def test_iteration_resumes_inside_a_page(store: Any, reverse: bool) -> None:
    """Buffers of 32, 128 and 1024 rows end in the middle of pages without delete markers."""
    expected = [(2 * index, float(index)) for index in range(COUNT)]
    if reverse:
        expected.reverse()
    assert list(store.range(reverse=reverse)) == expected
    for rows in (1, 3, 31, 33, 999):
        keys = [key for batch in store.range(reverse=reverse).keys().batches(rows) for key in batch]
        assert keys == [key for key, _ in expected]


@pytest.mark.parametrize("reverse", [False, True])
def test_overflow_runs_in_a_run_of_several_segments(tmp_path: Path, reverse: bool) -> None:
    """Each page's long keys and values are read from its own segment."""
    store = tiny(tmp_path / "s", "str", "bytes")
    expected = []
    for part in "abc":
        rows = [(part * 600 + str(index), part.encode() * (2000 + index)) for index in range(5)]
        store.put_many([key for key, _ in rows], [value for _, value in rows])
        store.checkpoint()
        expected += rows
    assert store.stats().base_segments == 3 and store.stats().newer_sources == 0
    if reverse:
        expected.reverse()
    assert list(store.range(reverse=reverse)) == expected
    for key, value in expected:
        assert store[key] == value
        assert list(store.range(key, key, (True, True), reverse)) == [(key, value)]
    values, found = store.get_many([key for key, _ in expected])
    assert found.all() and list(values) == [value for _, value in expected]
    store["b" * 600 + "1"] = b"new"
    store.compact()
    assert store["b" * 600 + "1"] == b"new" and len(store) == 15
    assert store.verify().ok
    store.close()


def test_a_range_is_a_question_asked_anew(store: Any) -> None:
    view = store.range(10, 20)
    assert len(view) == 5
    store[11] = -1.0
    assert len(view) == 6 and view.arrays()[0].tolist() == [10, 11, 12, 14, 16, 18]
    assert list(view) == list(view)


@pytest.mark.parametrize("change", ["put", "clear", "checkpoint", "compact", "load"])
def test_a_read_in_progress_keeps_its_snapshot(tmp_path: Path, change: str) -> None:
    store = tiny(tmp_path / "s", "u8", "f8")
    store.bulk_load(np.arange(0, 400, 2, dtype="u8"), np.zeros(200))
    store.put_many(np.arange(1, 400, 4, dtype="u8"), np.ones(100))
    expected = list(store.items())
    forward, backward = iter(store.items()), reversed(store.items())
    batches = store.range().batches(7)
    begun = [next(forward), next(backward), next(batches)]
    if change == "put":
        store.put_many(np.arange(400, dtype="u8"), np.full(400, 9.0))
    elif change == "clear":
        store.clear()
        store.compact()
    elif change == "load":
        store.bulk_load(np.arange(400, dtype="u8"), np.full(400, 9.0))
        store.compact()
    else:
        getattr(store, change)()
    assert [begun[0], *forward] == expected
    assert [begun[1], *backward] == expected[::-1]
    keys = [begun[2][0], *(keys for keys, _ in batches)]
    assert np.concatenate(keys).tolist() == [key for key, _ in expected]
    store.close()


def test_arrays_with_threads_are_the_same(store: Any) -> None:
    for view in (store.range(), store.range(7, 1500), store.range(reverse=True, limit=123)):
        for one, many in zip(view.arrays(), view.arrays(threads=3)):
            assert np.array_equal(one, many)


def test_a_range_is_a_mapping_too(store: Any) -> None:
    """dict() takes whatever has keys() for one."""
    assert dict(store.items()) == dict(store) == {2 * index: float(index) for index in range(COUNT)}
    assert dict(store.range(10, 20)) == {10: 5.0, 12: 6.0, 14: 7.0, 16: 8.0, 18: 9.0}
    for reverse, inside, outside in ((False, 10, 16), (True, 18, 12)):
        view = store.range(10, 20, reverse=reverse, limit=2)
        assert dict(view) == dict(list(view)) and len(dict(view)) == 2
        assert view[inside] == inside / 2
        for key in (outside, 11, 8, 20, -1):
            with pytest.raises(KeyError):
                view[key]
    assert dict(store.range(9, 3)) == {}


def test_empty_ranges(store: Any) -> None:
    for view in (store.range(5, 5), store.range(9, 3), store.range(limit=0), store.range(10**9)):
        assert list(view) == list(reversed(view)) == list(view.batches()) == []
        assert len(view) == 0 and not view
        keys, values = view.arrays()
        assert keys.dtype == "u8" and values.dtype == "f8" and len(keys) == len(values) == 0


def test_what_a_range_refuses(store: Any) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        store.range(limit=-1)
    with pytest.raises(ValueError, match="at least 1"):
        store.range().batches(0)
    with pytest.raises(cesium.SchemaError, match="u8"):
        store.range("a", None)
    with pytest.raises(TypeError, match="step"):
        store[1:9:2]
    view = store.range()
    rows = iter(view)
    next(rows)
    store.close()
    with pytest.raises(cesium.ClosedError):
        len(view)
    with pytest.raises(cesium.ClosedError):
        iter(view)
    with pytest.raises(cesium.ClosedError):
        list(rows)


def test_repr_names_the_bounds(store: Any) -> None:
    text = repr(store.range(10, 20, reverse=True, limit=3).keys())
    assert "10" in text and "20" in text and "reverse=True" in text and "limit=3" in text


def test_membership_is_what_iteration_yields() -> None:
    with cesium.open(":memory:", key="u8", value="f8") as store:
        store.put_many([1, 2, 3], [1.5, 2.5, 3.5])
        view = store.range(2, None)
        for piece in (view, view.keys(), view.values()):
            assert all(item in piece for item in piece)
        assert (1, 1.5) not in view and (2, 9.0) not in view and 2 not in view
        assert 1 not in view.keys() and 1.5 not in view.values()


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_number_of_threads_or_rows_is_at_least_one(wrong: int) -> None:
    with cesium.open(":memory:", key="u8", value="f8") as store:
        store[1] = 1.0
        for call in (
            lambda: store.range().arrays(threads=wrong),
            lambda: store.range().batches(wrong),
            lambda: store.get_many([1], threads=wrong),
            lambda: store.contains_many([1], threads=wrong),
            lambda: store.bulk_load([1], [1.0], threads=wrong),
        ):
            with pytest.raises(ValueError, match="at least 1"):
                call()
        with pytest.raises(TypeError):
            store.range(limit=2.5)
        assert list(store.range(limit=2**70)) == [(1, 1.0)]
