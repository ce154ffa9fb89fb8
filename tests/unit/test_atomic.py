"""Single operations that read and write in one commit."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium


def in_memory(value: Any, key: Any = "u8") -> cesium.Store:
    return cesium.open(":memory:", key=key, value=value)


def test_compare_and_set() -> None:
    store = in_memory("i8")
    assert store.compare_and_set(1, cesium.MISSING, 10)
    assert not store.compare_and_set(1, cesium.MISSING, 11)
    assert not store.compare_and_set(1, 11, 12) and store[1] == 10
    sequence = store.sequence
    assert store.compare_and_set(1, 10, 12) and store[1] == 12
    assert store.sequence == sequence + 1
    assert not store.compare_and_set(2, 10, 12) and 2 not in store
    assert store.compare_and_set(1, 12, cesium.MISSING) and 1 not in store
    sequence = store.sequence
    assert store.compare_and_set(1, cesium.MISSING, cesium.MISSING)
    assert store.sequence == sequence, "nothing to be done, nothing committed"


@pytest.mark.parametrize(
    ("value", "stored", "same", "other"),
    [
        ("f8", math.nan, math.nan, 0.0),
        ("f8", -0.0, 0.0, 1.0),
        ("json", {"a": 1, "b": [2]}, {"b": [2], "a": 1}, {"a": 1}),
        ("bytes", b"x" * 5000, b"x" * 5000, b"x" * 4999),
        ("str", "ä", "ä", "a"),
        ("(3,)f8", [1.0, 2.0, math.nan], np.array([1.0, 2.0, math.nan]), [1.0, 2.0, 3.0]),
        ([("a", "f8"), ("b", "i4")], (1.5, 2), (1.5, 2), (1.5, 3)),
    ],
    ids=str,
)
def test_what_is_the_same(value: Any, stored: Any, same: Any, other: Any) -> None:
    store = in_memory(np.dtype(value) if value == "(3,)f8" else value)
    store[1] = stored
    assert not store.compare_and_set(1, other, stored)
    assert store.compare_and_set(1, same, other)
    assert store.compare_and_set(1, other, cesium.MISSING) and not store


def test_put_if_absent() -> None:
    store = in_memory("bytes", "str")
    assert store.put_if_absent("a", b"1") and not store.put_if_absent("a", b"2")
    assert store["a"] == b"1"


def test_increment() -> None:
    store = in_memory("i8")
    assert store.increment(1) == 1 and store.increment(1, 41) == 42 and store.increment(1, -2) == 40
    assert store[1] == 40
    floats = in_memory("f4")
    assert floats.increment(1, 0.1) == floats[1] == float(np.float32(0.1))
    assert in_memory("c16").increment(1, 1j) == 1j


def test_an_increment_that_does_not_fit_changes_nothing() -> None:
    store = in_memory("u1")
    store[1] = 200
    sequence = store.sequence
    for by in (56, -201):
        with pytest.raises(cesium.SchemaError):
            store.increment(1, by)
    with pytest.raises(cesium.SchemaError):
        store.increment(2, -1)
    with pytest.raises(TypeError):
        store.increment(1, "one")
    assert store[1] == 200 and 2 not in store and store.sequence == sequence


@pytest.mark.parametrize(
    ("value", "stored", "by", "total"),
    [
        ("i8", 100, np.int8(100), 200),
        ("i8", 100, np.uint8(200), 300),
        ("i8", 2**40, np.int32(1), 2**40 + 1),
        ("u8", 2**63 + 1, np.int64(1), 2**63 + 2),
        ("i8", 2**60 + 1, 1.0, 2**60 + 2),
        ("i8", 5, True, 6),
        ("f8", 16777217.0, np.float32(1), 16777218.0),
        ("f8", 0.5, 2**60, 2.0**60),
        ("c16", 1j, np.complex64(1), 1 + 1j),
    ],
    ids=str,
)
def test_increments_are_exact_whatever_number_is_added(
    value: str, stored: Any, by: Any, total: Any
) -> None:
    store = in_memory(value)
    store[1] = stored
    assert store.increment(1, by) == total == store[1]
    assert store.increment(2, by) == store[2] == by


def test_increments_that_are_refused() -> None:
    store = in_memory("i8")
    store[1] = 2**63 - 1
    for by in (np.int64(5), 1, 0.5, float("inf"), 1j):
        with pytest.raises(cesium.SchemaError):
            store.increment(1, by)
    floats = in_memory("f8")
    with pytest.raises(cesium.SchemaError):
        floats.increment(1, 10**400)
    assert store[1] == 2**63 - 1 and not floats


def test_missing_is_never_a_value() -> None:
    store = in_memory("i8")
    store[1] = 5
    for call in (store.setdefault, store.put_if_absent, store.put):
        for key in (1, 2):
            with pytest.raises(cesium.SchemaError):
                call(key, cesium.MISSING)
    assert dict(store.items()) == {1: 5}
    assert store.pop(2, cesium.MISSING) is cesium.MISSING


def test_a_value_that_does_not_fit_is_refused_whatever_is_there() -> None:
    store = in_memory("i8")
    store[1] = 1
    for expected in (1, 2, cesium.MISSING):
        with pytest.raises(cesium.SchemaError):
            store.compare_and_set(1, expected, "garbage")


@pytest.mark.parametrize("value", ["bytes", "str", "json", "bool", "M8[s]", [("a", "i8")]], ids=str)
def test_only_numbers_increment(value: Any) -> None:
    with pytest.raises(TypeError, match="only numbers increment"):
        in_memory(value).increment(1)


def test_wrong_input_changes_nothing(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u1", value="u1") as store:
        store[1] = 1
        for call in (
            lambda: store.compare_and_set("1", 1, 2),
            lambda: store.compare_and_set(256, cesium.MISSING, 2),
            lambda: store.compare_and_set(1, "one", 2),
            lambda: store.compare_and_set(1, 1, 300),
            lambda: store.put_if_absent(2, cesium.MISSING.__class__),
            lambda: store.increment(-1),
        ):
            with pytest.raises(cesium.SchemaError):
                call()
        assert dict(store.items()) == {1: 1} and store.sequence == 1
        store[3] = 3  # the writer lock was given back
    with cesium.open(tmp_path / "s", flag="r") as store:
        for call in (
            lambda: store.compare_and_set(1, 1, 2),
            lambda: store.put_if_absent(9, 9),
            lambda: store.increment(1),
        ):
            with pytest.raises(cesium.ReadOnlyError):
                call()
    with pytest.raises(cesium.ClosedError):
        store.increment(1)


def test_too_large_a_value() -> None:
    store = in_memory("bytes")
    with pytest.raises(cesium.LimitError, match="put it"):
        store.compare_and_set(1, cesium.MISSING, bytes((16 << 20) + 1))
    assert not store


def test_they_are_durable(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="str", value="i8") as store:
        store.increment("hits", 5)
        store.compare_and_set("gone", cesium.MISSING, 1)
        store.compare_and_set("gone", 1, cesium.MISSING)
        assert store.durable_sequence == 3
        store.checkpoint()
        store.increment("hits")
    with cesium.open(tmp_path / "s") as store:
        assert dict(store.items()) == {"hits": 6}


def test_threads_lose_no_increment(tmp_path: Path) -> None:
    options = cesium.Options("u8", "i8", durability="process", memory_limit="1MiB")
    with cesium.open(tmp_path / "s", options=options) as store:
        won: list[int] = []

        def count() -> None:
            for turn in range(2000):
                store.increment(turn % 7)
                if store.put_if_absent(1000 + turn, turn):
                    won.append(turn)
                while True:
                    before = store.get(99, cesium.MISSING)
                    after = 1 if before is cesium.MISSING else before + 1
                    if store.compare_and_set(99, before, after):
                        break

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(store[key] for key in range(7)) == store[99] == 8000
        assert sorted(won) == list(range(2000))


def test_missing_is_one_object() -> None:
    assert repr(cesium.MISSING) == "cesium.MISSING"
    assert pickle.loads(pickle.dumps(cesium.MISSING)) is cesium.MISSING
    assert copy.deepcopy(cesium.MISSING) is cesium.MISSING
    assert in_memory("u8").get(1, cesium.MISSING) is cesium.MISSING
