"""The store's face: a mapping, its writes across tiers, and what it refuses."""

from __future__ import annotations

import datetime
import os
import pickle
import subprocess
import sys
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.maintenance import FROZEN_MOST
from cesium.opening import acquire
from cesium.tiers import RUNS_MOST

KEY_LIMIT = 64 << 10
VALUE_LIMIT = 64 << 20


@pytest.fixture(params=["memory", "drive"])
def store(request: Any, tmp_path: Path) -> Any:
    path = ":memory:" if request.param == "memory" else tmp_path / "store"
    store = cesium.open(path, key="u8", value="f8", durability="process")
    yield store
    store.close()


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file of a directory but the lock, which means nothing."""
    return {item.name: item.read_bytes() for item in path.iterdir() if item.name != "LOCK"}


def rows(store: Any) -> dict[Any, Any]:
    return dict(store.items())


# --- a mapping ------------------------------------------------------------------------------------


def test_a_mapping(store: Any) -> None:
    assert not store and len(store) == 0 and list(store) == []
    store[3] = 1.5
    store[1] = 2
    assert store and len(store) == 2 and 3 in store and 2 not in store
    assert store[3] == 1.5 and store.get(2) is None and store.get(2, 0.0) == 0.0
    assert type(store[3]) is float and type(next(iter(store))) is int
    assert list(store) == [1, 3] and list(reversed(store)) == [3, 1]
    assert list(store.items()) == [(1, 2.0), (3, 1.5)]
    assert list(store.keys()) == [1, 3] and list(store.values()) == [2.0, 1.5]
    assert store.setdefault(3, 9.0) == 1.5 and store.setdefault(4, 9.0) == 9.0
    assert store.pop(4) == 9.0 and store.pop(4, None) is None
    store.update({5: 5.0, 3: 3.0})
    store.update([(6, 6.0), (6, 7.0)])
    assert rows(store) == {1: 2.0, 3: 3.0, 5: 5.0, 6: 7.0}
    del store[5]
    store.clear()
    assert not store and rows(store) == {}


def test_a_missing_key_is_a_key_error(store: Any) -> None:
    store[1] = 1.0
    sequence = store.sequence
    for action in (lambda: store[2], lambda: store.pop(2), lambda: store.__delitem__(2)):
        with pytest.raises(KeyError) as caught:
            action()
        assert caught.value.args == (2,)
    assert store.sequence == sequence, "nothing was committed"
    assert store.delete(2) == sequence + 1, "delete is blind"
    store.clear()
    for edge in (store.first, store.last):
        with pytest.raises(KeyError, match="empty"):
            edge()


def test_keys_outside_the_domain_are_found_nowhere_and_written_never(store: Any) -> None:
    store[0] = 1.0
    for key in (-1, 2**64):
        assert key not in store and store.get(key, "none") == "none"
        with pytest.raises(KeyError):
            del store[key]
        for write in (lambda key=key: store.put(key, 1.0), lambda key=key: store.delete(key)):
            with pytest.raises(cesium.SchemaError):
                write()
    assert store.contains_many([-1, 0]).tolist() == [False, True]
    assert rows(store) == {0: 1.0}


def test_identity_is_what_counts_for_equality_and_hash(store: Any) -> None:
    other = cesium.open(":memory:", key="u8", value="f8")
    assert store == store and store != other and (store == 3) is False
    assert len({store, other, store}) == 2


def test_slices(store: Any) -> None:
    store.update({key: float(key) for key in range(10)})
    assert list(store[3:5].keys()) == [3, 4] and len(store[:]) == 10 and len(store[8:]) == 2
    del store[2:9]
    assert list(store) == [0, 1, 9]
    for wrong in (slice(0, 5, 1), slice(None, None, -1)):
        with pytest.raises(TypeError, match="step"):
            store[wrong]
        with pytest.raises(TypeError, match="step"):
            del store[wrong]
    with pytest.raises(TypeError, match="assigned"):
        store[1:2] = 5.0
    assert list(store) == [0, 1, 9]


def test_commits_are_numbered_and_counted(store: Any) -> None:
    start = store.sequence
    assert store.put(1, 1.0) == start + 1
    assert store.put_many([2, 3], [1.0, 2.0]) == (start + 2, "process", 2)
    assert store.delete_many([2, 9]) == (start + 3, "process", 2)
    assert store.delete_range(0, 2) == (start + 4, "process", 1)
    assert store.bulk_load([7, 8], [1.0, 2.0]) == (start + 5, "sync", 2)
    assert store.put_many([], []) == (start + 5, "process", 0)
    assert store.bulk_load([], []).rows == 0 and store.sequence == start + 5
    commit = store.put_many([1], [1.0], durability="sync")
    assert commit.durability == "sync" and commit.sequence == commit[0]
    with pytest.raises(ValueError, match="durability"):
        store.put(1, 1.0, durability="never")


def test_the_last_of_equal_keys_wins(store: Any) -> None:
    store.put_many([5, 1, 5, 5], [1.0, 2.0, 3.0, 4.0])
    assert rows(store) == {1: 2.0, 5: 4.0}
    store.bulk_load([5, 9, 5, 1, 9], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert rows(store) == {1: 4.0, 5: 3.0, 9: 5.0}
    many = [7] * 40 + [8] * 40
    store.put_many(many, np.arange(80.0))
    assert store[7] == 39.0 and store[8] == 79.0


def test_get_many_and_contains_many(store: Any) -> None:
    store.bulk_load(np.arange(0, 1000, 2), np.arange(500.0))
    store.put_many([1, 3], [-1.0, -3.0])
    store.delete(4)
    values, found = store.get_many([3, 4, 998, 5, 0, 3])
    assert values.dtype == "f8" and values.tolist() == [-3.0, 0.0, 499.0, 0.0, 0.0, -3.0]
    assert found.dtype == bool and found.tolist() == [True, False, True, False, True, True]
    values, _ = store.get_many([3, 4], default=np.nan)
    assert values[0] == -3.0 and np.isnan(values[1])
    assert store.contains_many(np.array([1, 4, 6], "u1")).tolist() == [True, False, True]
    values, found = store.get_many([])
    assert len(values) == len(found) == 0


# --- writes across tiers --------------------------------------------------------------------------


def test_put_delete_range_put_again_across_flushes(store: Any) -> None:
    everything = {key: float(key) for key in range(100)}
    store.update(everything)
    store.compact()
    store.delete_range(20, 80)
    store[50] = -1.0
    store.checkpoint()
    assert rows(store) == {**{k: v for k, v in everything.items() if not 20 <= k < 80}, 50: -1.0}
    store.put_many([20, 79], [-2.0, -3.0])
    store.delete_range(45, 55)
    store[54] = -4.0
    expected = {k: v for k, v in everything.items() if not 20 <= k < 80}
    expected |= {20: -2.0, 79: -3.0, 54: -4.0}
    assert rows(store) == expected and len(store) == len(expected)
    store.checkpoint()
    assert rows(store) == expected
    store.delete_range(20, 80)
    store.checkpoint()
    store[50] = 1.0
    expected = {k: v for k, v in everything.items() if not 20 <= k < 80} | {50: 1.0}
    assert rows(store) == expected
    store.compact()
    assert rows(store) == expected and store.stats().estimated_rows == len(expected)


def test_a_load_over_newer_and_older_single_writes(store: Any) -> None:
    store.update({1: 1.0, 2: 1.0, 3: 1.0})
    store.checkpoint()
    store.update({2: 2.0, 4: 2.0})
    store.delete(1)
    store.bulk_load([1, 4, 5, 1], [9.0, 9.0, 9.0, 10.0])
    assert rows(store) == {1: 10.0, 2: 2.0, 3: 1.0, 4: 9.0, 5: 9.0}
    store.update({5: 3.0, 1: 3.0})
    store.delete(4)
    assert rows(store) == {1: 3.0, 2: 2.0, 3: 1.0, 5: 3.0}
    store.bulk_load([4, 5], [11.0, 12.0])
    expected = {1: 3.0, 2: 2.0, 3: 1.0, 4: 11.0, 5: 12.0}
    assert rows(store) == expected
    store.checkpoint()
    assert rows(store) == expected
    store.compact()
    assert rows(store) == expected


def test_a_load_above_a_range_delete(store: Any) -> None:
    store.update(dict.fromkeys(range(50), 1.0))
    store.compact()
    store.delete_range(None, None)
    store.bulk_load(np.arange(10, 20), np.full(10, 2.0))
    store.delete_range(15, None)
    expected = dict.fromkeys(range(10, 15), 2.0)
    assert rows(store) == expected
    store.checkpoint()
    assert rows(store) == expected
    store.compact()
    assert rows(store) == expected


@pytest.mark.parametrize(
    ("lo", "hi", "left"),
    [(None, None, []), (None, 5, [5, 6, 9]), (5, None, [0, 4]), (5, 5, [0, 4, 5, 6, 9]),
     (6, 4, [0, 4, 5, 6, 9]), (4, 6, [0, 6, 9])],
)  # fmt: skip
def test_range_deletes_and_their_ends(store: Any, lo: Any, hi: Any, left: list[int]) -> None:
    store.put_many([0, 5, 9], [1.0, 1.0, 1.0])
    store.compact()
    store.put_many([4, 6], [1.0, 1.0])
    store.delete_range(lo, hi)
    for finish in (lambda: None, store.checkpoint, store.compact):
        finish()
        assert list(store) == left and len(store) == len(left)


def test_clear_and_compact_give_the_space_back(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="f8", durability="process")
    store.bulk_load(np.arange(200_000), np.zeros(200_000))
    full = store.stats().segment_bytes
    store.delete_range(1000, None)
    assert len(store) == 1000
    store.compact()
    assert store.stats().segment_bytes < full / 50 and len(store) == 1000
    store.clear()
    store.compact()
    stats = store.stats()
    assert stats.segments == 0 and stats.segment_bytes == 0 and len(store) == 0
    assert not [name for name in os.listdir(tmp_path / "s") if name.startswith("segment-")]
    store[1] = 1.0
    store.close()
    with cesium.open(tmp_path / "s") as store:
        assert rows(store) == {1: 1.0}


def test_a_batch_larger_than_a_frame_is_one_commit(tmp_path: Path) -> None:
    """More than 16 MiB go out as segments, by the same call."""
    with cesium.open(tmp_path / "s", key="u8", value="bytes", durability="process") as store:
        store[3] = b"old"
        commit = store.put_many([3, 1, 3], [b"x", b"y" * (17 << 20), b"z"])
        assert commit.sequence == 2 and commit.rows == 3
        assert store[3] == b"z" and len(store[1]) == 17 << 20 and len(store) == 2


def test_full_memtables_are_flushed_and_merged(tmp_path: Path) -> None:
    store = cesium.open(
        tmp_path / "s", key="u8", value="f8", durability="process", memory_limit="1MiB"
    )
    rng = np.random.default_rng(1)
    model = {}
    for _ in range(60):
        keys = rng.integers(0, 30_000, 1000)
        values = rng.random(1000)
        store.put_many(keys, values)
        model.update(zip(keys.tolist(), values.tolist()))
    stats = store.stats()
    assert stats.segments and stats.memtable_bytes < 1 << 20
    assert stats.newer_sources <= RUNS_MOST + FROZEN_MOST
    assert rows(store) == model
    store.compact()
    assert store.stats().newer_sources == 0 and rows(store) == model
    store.close()


# --- what is refused ------------------------------------------------------------------------------


def wrong_writes() -> dict[str, Any]:
    return {
        "key type": lambda s: s.put("a", 1.0),
        "key float": lambda s: s.put(1.5, 1.0),
        "value type": lambda s: s.put(1, "a"),
        "key none": lambda s: s.put(None, 1.0),
        "value none": lambda s: s.put(1, None),
        "keys dtype": lambda s: s.put_many(np.array([1.5]), [1.0]),
        "keys text": lambda s: s.put_many(["a"], [1.0]),
        "keys negative": lambda s: s.put_many([-1], [1.0]),
        "keys shape": lambda s: s.put_many([[1, 2]], [[1.0, 2.0]]),
        "keys scalar": lambda s: s.put_many(1, 1.0),
        "values dtype": lambda s: s.put_many([1], ["a"]),
        "values shape": lambda s: s.put_many([1], [[1.0, 2.0]]),
        "fewer values": lambda s: s.put_many([1, 2], [1.0]),
        "more values": lambda s: s.put_many([1], [1.0, 2.0]),
        "load dtype": lambda s: s.bulk_load(np.array(["a"]), [1.0]),
        "load lengths": lambda s: s.bulk_load([1, 2], [1.0]),
        "load outside": lambda s: s.bulk_load([2**70], [1.0]),
        "delete type": lambda s: s.delete("a"),
        "delete_many": lambda s: s.delete_many(["a"]),
        "delete_range": lambda s: s.delete_range("a", "b"),
        "setdefault": lambda s: s.setdefault(1, "a"),
        "update": lambda s: s.update({7: 1.0, "b": 2.0}),
    }


@pytest.mark.parametrize("name", wrong_writes())
def test_what_does_not_fit_is_a_schema_error_and_changes_nothing(store: Any, name: str) -> None:
    store[42] = 1.0
    sequence = store.sequence
    with pytest.raises(cesium.SchemaError) as caught:
        wrong_writes()[name](store)
    assert isinstance(caught.value, (TypeError, ValueError)) and str(caught.value)
    assert store.sequence == sequence and rows(store) == {42: 1.0}


def test_limits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"key": "bytes", "value": "bytes", "durability": "process"}
    with cesium.open(tmp_path / "s", **options, blob_threshold=None) as store:
        store[b"k" * KEY_LIMIT] = b"v"
        sequence = store.sequence
        long_key = b"k" * (KEY_LIMIT + 1)
        for write in (
            lambda: store.put(long_key, b""),
            lambda: store.put_many([b"a", long_key], [b"", b""]),
            lambda: store.bulk_load([b"a", long_key], [b"", b""]),
        ):
            with pytest.raises(cesium.LimitError):
                write()
        value = bytes(VALUE_LIMIT + 1)
        with pytest.raises(cesium.LimitError):
            store[b"a"] = value
        with pytest.raises(cesium.LimitError):
            store.put_many([b"a"], [value])
        assert store.sequence == sequence and list(store) == [b"k" * KEY_LIMIT]
        store[b"a"] = value[:-1]
        assert store[b"a"] == value[:-1]


def test_limits_in_memory_and_of_delete_range() -> None:
    store = cesium.open(":memory:", key="bytes", value="f8")
    store[b"a"] = 1.0
    longest = b"k" * KEY_LIMIT
    store[longest] = 2.0
    assert list(store.range(longest, longest, (True, True))) == [(longest, 2.0)]
    assert store.floor(longest) == (longest, 2.0)
    assert store.higher(longest) is None
    store.delete_range(b"b", None)
    assert list(store) == [b"a"]


# --- opening --------------------------------------------------------------------------------------


def test_the_schema_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "s"
    schema = {"key": ("datetime64[s]", "-i4"), "value": [("price", "f8"), ("size", "i4")]}
    moment = np.datetime64("2013-05-01T12:00:00", "s")
    with cesium.open(path, **schema) as store:
        store[moment, 5] = (1.5, 2)
    with cesium.open(path) as store:
        assert store.first() == ((moment, 5), (1.5, 2))
        row = store[moment, 5]
        assert row.price == 1.5 and row.size == 2
        assert store.options.key is not None and store.options.value is not None
        again = store.options
    with cesium.open(path, **schema) as store:
        assert len(store) == 1
    with cesium.open(path, options=again) as store:
        assert len(store) == 1


@pytest.mark.parametrize(("key", "value"), [("i4", None), (None, "bytes"), ("str", "f4")])
def test_another_schema_is_an_error_that_shows_both(tmp_path: Path, key: Any, value: Any) -> None:
    cesium.open(tmp_path / "s", key="u8", value="f8").close()
    for held in (False, True):
        holder = cesium.open(tmp_path / "s") if held else None
        with pytest.raises(cesium.SchemaError) as caught:
            cesium.open(tmp_path / "s", key=key, value=value)
        text = str(caught.value)
        assert "u8" in text and "f8" in text and (key or value) in text
        if holder is not None:
            holder.close()


def test_a_new_store_needs_a_key_type(tmp_path: Path) -> None:
    with pytest.raises(cesium.SchemaError, match="key"):
        cesium.open(tmp_path / "s")
    with pytest.raises(cesium.SchemaError):
        cesium.open(tmp_path / "t", key="no such type")
    with cesium.open(tmp_path / "s", key="str") as store:
        store["a"] = b"bytes are the default"


def test_flags(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for flag in ("w", "r"):
        with pytest.raises(FileNotFoundError):
            cesium.open(path, key="u8", flag=flag)
        assert not path.exists()
    with cesium.open(path, key="u8", value="f8", flag="c") as store:
        store[1] = 1.0
    for flag in ("c", "w", "r"):
        with cesium.open(path, flag=flag) as store:
            assert rows(store) == {1: 1.0}
    with cesium.open(path, key="str", value="str", flag="n") as store:
        assert not store and store.options.key == "str"
        store["a"] = "b"
    with cesium.open(path) as store:
        assert rows(store) == {"a": "b"}
    with pytest.raises(ValueError, match="flag"):
        cesium.open(path, flag="x")
    with pytest.raises(ValueError, match="durability"):
        cesium.open(path, durability="maybe")


def test_a_directory_with_foreign_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for flag in ("c", "n"):
        with pytest.raises(FileExistsError, match="thesis"):
            cesium.open(tmp_path, key="u8", flag=flag)
    for flag in ("w", "r"):
        with pytest.raises(FileNotFoundError):
            cesium.open(tmp_path, flag=flag)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.txt"]
    cesium.open(tmp_path / "s", key="u8").close()
    (tmp_path / "s" / "notes").write_text("mine")
    with pytest.raises(FileExistsError, match="notes"):
        cesium.open(tmp_path / "s", key="u8", flag="n")
    cesium.open(tmp_path / "s").close()
    assert (tmp_path / "s" / "notes").read_text() == "mine"


def test_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = cesium.open(":memory:", key="u8", value="f8")
    two = cesium.open(":memory:", key="u8", value="f8")
    one[1] = 1.0
    assert 1 not in two and one.path == ":memory:"
    for flag in ("r", "w"):
        with pytest.raises(FileNotFoundError):
            cesium.open(":memory:", key="u8", flag=flag)
    with pytest.raises(TypeError):
        pickle.dumps(one)
    one.bulk_load(np.arange(100_000), np.zeros(100_000))
    one.compact()
    one.sync()
    assert one.verify().ok
    one.close()
    assert os.listdir(tmp_path) == []


def test_a_closed_store(store: Any) -> None:
    store[1] = 1.0
    with store as same:
        assert same is store
    store.close()
    assert store.closed and "closed" in repr(store)
    for action in (
        lambda: store[1], lambda: store.get(1), lambda: 1 in store, lambda: len(store),
        lambda: bool(store), lambda: list(store), lambda: store.put(1, 1.0), lambda: store.first(),
        lambda: store.delete(1), lambda: store.put_many([1], [1.0]), lambda: store.get_many([1]),
        lambda: store.bulk_load([1], [1.0]), lambda: store.range(), lambda: store.clear(),
        lambda: store.checkpoint(), lambda: store.compact(), lambda: store.sync(),
        lambda: store.verify(), lambda: store.stats(), lambda: store.pop(1, None),
        lambda: store.setdefault(1, 1.0), lambda: store.__enter__(), lambda: store.floor(1),
    ):  # fmt: skip
        with pytest.raises(cesium.ClosedError):
            action()


# --- read-only ------------------------------------------------------------------------------------


def every_write() -> dict[str, Any]:
    return {
        "put": lambda s: s.put(1, 1.0), "set": lambda s: s.__setitem__(1, 1.0),
        "delete": lambda s: s.delete(1), "del": lambda s: s.__delitem__(1),
        "pop": lambda s: s.pop(1), "setdefault": lambda s: s.setdefault(9, 1.0),
        "update": lambda s: s.update({1: 1.0}), "clear": lambda s: s.clear(),
        "put_many": lambda s: s.put_many([1], [1.0]), "delete_many": lambda s: s.delete_many([1]),
        "delete_range": lambda s: s.delete_range(0, 9), "slice": lambda s: s.__delitem__(slice(9)),
        "bulk_load": lambda s: s.bulk_load([1], [1.0]), "checkpoint": lambda s: s.checkpoint(),
        "compact": lambda s: s.compact(),
    }  # fmt: skip


@pytest.mark.parametrize("unflushed", [False, True])
def test_read_only_refuses_writes_and_writes_nothing_at_all(
    tmp_path: Path, unflushed: bool
) -> None:
    path, copy = tmp_path / "s", tmp_path / "copy"
    store = cesium.open(path, key="u8", value="f8", durability="process")
    store.bulk_load([1, 2], [1.0, 2.0])
    store[3] = 3.0
    if unflushed:  # as a killed process leaves it: the journal holds a row that no segment has
        subprocess.run(["cp", "-r", path, copy], check=True)
        (copy / "LOCK").unlink()
    store.close()
    if not unflushed:
        path.rename(copy)
        (copy / "LOCK").unlink()
    before = snapshot(copy)
    reader = cesium.open(copy, flag="r")
    assert rows(reader) == {1: 1.0, 2: 2.0, 3: 3.0} and reader.read_only
    for name, write in every_write().items():
        with pytest.raises(cesium.ReadOnlyError) as caught:
            write(reader)
        assert isinstance(caught.value, PermissionError), name
    reader.sync()
    assert reader.verify().ok and len(reader) == 3 and reader.stats().estimated_rows == 3
    reader.close()
    assert snapshot(copy) == before and not (copy / "LOCK").exists()


def test_a_read_only_directory_opens(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="f8") as store:
        store[1] = 1.0
    for item in (tmp_path / "s").iterdir():
        item.chmod(0o444)
    (tmp_path / "s").chmod(0o555)
    try:
        with cesium.open(tmp_path / "s", flag="r") as store:
            assert store[1] == 1.0
    finally:
        (tmp_path / "s").chmod(0o755)


# --- one engine a path ----------------------------------------------------------------------------


def test_the_same_path_twice_is_one_engine(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    one = cesium.open(tmp_path / "s", key="u8", value="f8")
    two = cesium.open("s")
    os.symlink(tmp_path / "s", tmp_path / "link")
    three = cesium.open(tmp_path / "link", flag="w")
    reader = cesium.open(tmp_path / "s", flag="r")
    one[1] = 1.0
    two[2] = 2.0
    assert rows(one) == rows(two) == rows(three) == rows(reader) == {1: 1.0, 2: 2.0}
    assert one != two
    with pytest.raises(cesium.ReadOnlyError):
        reader[3] = 3.0
    one.close()
    two.close()
    reader.close()
    three[3] = 3.0
    assert not three.closed
    with pytest.raises(cesium.ClosedError):
        one[1]
    three.close()
    with cesium.open("s") as store:
        assert len(store) == 3


def test_conflicting_options_raise(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with cesium.open(path, key="u8", value="f8") as store:
        for options in (
            {"durability": "process"}, {"memory_limit": "2MiB"}, {"flag": "n", "key": "u8"},
        ):  # fmt: skip
            with pytest.raises(cesium.ConflictError):
                cesium.open(path, **options)
        store[1] = 1.0


def test_a_read_only_handle_sees_the_moment_of_its_opening(tmp_path: Path) -> None:
    path = tmp_path / "s"
    cesium.open(path, key="u8", value="f8", durability="process").close()
    first = cesium.open(path, flag="r")
    writer = cesium.open(path, flag="w", durability="process")
    writer[1] = 1.0
    beside = cesium.open(path, flag="r")
    writer[2] = 2.0
    assert rows(first) == {}
    assert rows(beside) == {1: 1.0, 2: 2.0}, "beside the writer of its process it is one engine"
    beside.close()
    writer.close()
    second = cesium.open(path, flag="r")
    with cesium.open(path, flag="n", key="u8", value="f8") as anew:
        anew[3] = 3.0
    third = cesium.open(path, flag="r")
    assert [rows(reader) for reader in (first, second, third)] == [{}, {1: 1.0, 2: 2.0}, {3: 3.0}]
    for reader in (first, second, third):
        reader.close()


def test_what_a_path_and_bounds_may_be(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "s\udcff")
    with cesium.open(path, key="u8", value="f8") as store:
        store.put_many([1, 2, 3], [1.0, 2.0, 3.0])
        assert store.path == os.fsdecode(path)
        assert list(store.range(1, 2, [True, True]).keys()) == [1, 2]
        for inclusive in (True, "both", (True,), (True, False, True), None):
            with pytest.raises(TypeError, match=r"a pair, .* not "):
                store.range(1, 2, inclusive=inclusive)
    assert os.path.isdir(path)
    with pytest.raises(TypeError, match="int"):
        cesium.open(7, key="u8")
    with cesium.open(b":memory:", key="u8") as store:
        assert store.path == ":memory:"


def python(code: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


def test_another_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    code = """
import sys, cesium
try:
    cesium.open(sys.argv[1], flag=sys.argv[2], key="u8")
except cesium.LockedError as error:
    print(error.pid, error.host, error.started, str(error.pid) in str(error))
"""
    with cesium.open(tmp_path / "s", key="u8", value="f8") as store:
        store[1] = 1.0
        for flag in ("c", "w", "n"):
            result = python(code, tmp_path / "s", flag)
            pid, host, started, named = result.stdout.split()
            assert int(pid) == os.getpid() and host and started != "None" and named == "True"
        assert rows(store) == {1: 1.0}
    result = python("import sys, cesium; print(len(cesium.open(sys.argv[1])))", tmp_path / "s")
    assert result.stdout.strip() == "1", result.stderr


def test_a_forked_child_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "s", key="u8", value="f8", durability="process")
    store[1] = 1.0
    child = os.fork()
    if child == 0:  # no assertion may leave this process
        failures = 0
        for action in (lambda: store[1], lambda: store.put(2, 2.0), lambda: list(store),
                       lambda: len(store), lambda: store.checkpoint()):  # fmt: skip
            try:
                action()
                failures += 1
            except cesium.ClosedError as error:
                failures += "fork" not in str(error)
            except BaseException:
                failures += 1
        try:
            store.close()
        except BaseException:
            failures += 1
        os._exit(failures)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    store[3] = 3.0
    code = "import sys, cesium; cesium.open(sys.argv[1])"
    assert "LockedError" in python(code, tmp_path / "s").stderr, "the lock is the parent's still"
    store.close()
    with cesium.open(tmp_path / "s") as again:
        assert rows(again) == {1: 1.0, 3: 3.0}


def test_pickling_reopens_read_only(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = cesium.open(path, key="u8", value="f8")
    store[1] = 1.0
    data = pickle.dumps(store)
    here = pickle.loads(data)
    assert here.read_only and here[1] == 1.0
    with pytest.raises(cesium.ReadOnlyError):
        here[2] = 1.0
    store[2] = 2.0
    assert here[2] == 2.0, "in one process it is one engine"
    here.close()
    store.close()
    code = """
import sys, pickle
store = pickle.loads(bytes.fromhex(sys.argv[1]))
print(store.read_only, len(store))
"""
    assert python(code, data.hex()).stdout.split() == ["True", "2"]


# --- forms of keys and values, through the whole store --------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "pairs"),
    [
        ("bool", "u1", [(False, 1), (True, 2)]),
        ("i2", "bool", [(-5, True), (7, False)]),
        ("f4", "S4", [(-0.5, b"ab"), (1.5, b"")]),
        ("datetime64[ns]", "datetime64[D]",
         [(np.datetime64(1, "ns"), np.datetime64("2020-01-01")), (np.datetime64(2, "ns"), None)]),
        ("timedelta64[s]", "str", [(np.timedelta64(-1, "s"), ""), (np.timedelta64(1, "s"), "ß")]),
        ("S3", "json", [(b"ab", [1, None]), (b"b", {"a": 1.5})]),
        ("S12", "msgpack", [(b"ab", [1, None]), (b"b" * 12, {"a": b"x"})]),
        ("uuid", "bytes", [(uuid.UUID(int=1), b"a"), (uuid.UUID(int=2), bytes(5000))]),
        (datetime.datetime, "complex128",
         [(np.datetime64("2013-01-01T00:00", "us"), 1j), (np.datetime64("2014-01-01", "us"), 2.0)]),
        (("u1", "bool"), ("f4", (2,)), [((1, False), [1.0, 2.0]), ((1, True), [3.0, 4.0])]),
    ],
    ids=str,
)  # fmt: skip
def test_forms(tmp_path: Path, key: Any, value: Any, pairs: list[Any]) -> None:
    if value == "msgpack":
        pytest.importorskip("msgpack")
    pairs = [(k, np.datetime64("NaT") if v is None else v) for k, v in pairs]

    def check(store: Any) -> None:
        assert list(store) == [k for k, _ in pairs]
        for k, v in pairs:
            assert np.array_equal(store[k], v, equal_nan=isinstance(v, np.datetime64)) or (
                store[k] == v
            )

    path = tmp_path / "s"
    with cesium.open(path, key=key, value=value) as store:
        for k, v in reversed(pairs):
            store[k] = v
        check(store)
        keys, values = store.range().arrays()
        store.clear()
        store.put_many(keys, values)
        check(store)
        store.clear()
        store.bulk_load(keys, values)
        check(store)
    with cesium.open(path, key=key, value=value) as store:
        check(store)
        _, found = store.get_many(keys)
        assert found.all()


def test_user_codecs(tmp_path: Path) -> None:
    key = cesium.KeyCodec("lowered", lambda k: k.lower().encode(), lambda data: data.decode())
    value = cesium.ValueCodec(
        "ordered", lambda v: repr(list(v.items())).encode(), lambda d: OrderedDict(eval(d))
    )
    with cesium.open(tmp_path / "s", key=key, value=value) as store:
        store["Bee"] = OrderedDict(b=1, a=2)
        store["ant"] = OrderedDict()
        assert list(store) == ["ant", "bee"] and store["BEE"] == OrderedDict(b=1, a=2)
    with pytest.raises(cesium.SchemaError, match="lowered"):
        cesium.open(tmp_path / "s")
    with cesium.open(tmp_path / "s", key=key, value=value) as store:
        assert list(store.values()) == [OrderedDict(), OrderedDict(b=1, a=2)]


def test_tiny_pages_may_be_asked_for_in_tests_only() -> None:
    options = cesium.Options("u8", "f8")
    store = cesium.Store(acquire(":memory:", options, 4), options)
    store.put_many(np.arange(100), np.zeros(100))
    assert store.core.live_counters()["pages"] >= 25
